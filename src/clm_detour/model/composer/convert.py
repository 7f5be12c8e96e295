"""Write the model of a Composer checkpoint as a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, ModernBertConfig, ModernBertForMaskedLM

from clm_detour.model.composer.checkpoint import Checkpoint, read_checkpoint
from clm_detour.model.composer.flexbert import modernbert_config, modernbert_weights
from clm_detour.model.weights import DECODER, EMBEDDING, check_fit, check_tied
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.files import atomic_folder, cache_folder
from clm_detour.utils.locks import exclusive

POSITIONS = 8192  # rotary embeddings have no limit, and a checkpoint does not say how long its rows were
ROLES = "pad", "cls", "sep"


def convert(checkpoint: Path, folder: Path, tokenizer: str | None = None, positions: int = POSITIONS) -> None:
    """Write a folder with `config.json`, `model.safetensors` (fp32 as trained) and the tokenizer.

    Args:
        checkpoint: File of a checkpoint of ModernBERT's, Ettin's or BioClinical ModernBERT's training.
        folder: Folder to write. A folder that is there is replaced.
        tokenizer: Folder or hub id of the tokenizer. None means the one in the checkpoint.
        positions: Longest input of the model in tokens.

    Raises:
        UserError: If the checkpoint cannot be read, its network is no ModernBERT, a weight is missing or of
            another shape, or there is no tokenizer.
    """
    read = read_checkpoint(checkpoint)
    weights = modernbert_weights(read.weights)
    with atomic_folder(folder) as temporary:
        special = write_tokenizer(read, checkpoint, temporary, tokenizer)
        config = modernbert_config(read.config, weights, positions, **special)
        filled(config, weights, str(checkpoint)).save_pretrained(temporary)


def filled(config: ModernBertConfig, weights: Mapping[str, Tensor], source: str) -> ModernBertForMaskedLM:
    """Return the network of transformers with these weights.

    Raises:
        UserError: If they are not exactly its own, or its decoder is not its embedding.
    """
    with torch.device("meta"):
        network = ModernBertForMaskedLM(config)
    expected = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    weights = {DECODER: weights[EMBEDDING], **weights}
    check_fit(expected, weights, source, "ModernBertForMaskedLM", "give a checkpoint that is whole")
    check_tied(weights, source, "only a network whose decoder is its embedding can be converted")
    network.load_state_dict(weights, assign=True)
    network.tie_weights()
    return network


def write_tokenizer(
    read: Checkpoint, checkpoint: Path, folder: Path, tokenizer: str | None
) -> dict[str, int]:
    """Write the files of the tokenizer, and return the ids of its special tokens as keys of a config."""
    if tokenizer is None:
        if "tokenizer.json" not in stored_files(read.tokenizer):
            raise UserError(
                f"{checkpoint} holds no tokenizer.json; name the tokenizer that it was trained with "
                "(--tokenizer answerdotai/ModernBERT-base)."
            )
        for name, content in stored_files(read.tokenizer).items():
            (folder / name).write_text(content, encoding="utf-8")
    try:
        opened = AutoTokenizer.from_pretrained(tokenizer or folder)
    except Exception as error:  # its type differs between releases and tokenizers
        raise UserError(
            f"The tokenizer {tokenizer or f'in {checkpoint}'} cannot be opened ({on_one_line(error)}); name "
            "another with --tokenizer."
        ) from None
    if tokenizer is not None:
        opened.save_pretrained(folder)
    ids = {role: getattr(opened, f"{role}_token_id") for role in ROLES}
    ids |= {"bos": ids["cls"], "eos": ids["sep"]}
    return {f"{role}_token_id": id for role, id in ids.items() if id is not None}


def stored_files(tokenizer: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return name -> text of the JSON and text files of a tokenizer. Others, such as code, are left out."""
    files = {}
    for name, stored in tokenizer.items():
        extension, content = stored.get("file_extension"), stored.get("content")
        plain = Path(name).name.removesuffix(str(extension)) + str(extension)
        if extension == ".json":
            files[plain] = json.dumps(content, ensure_ascii=False)
        elif extension == ".txt" and isinstance(content, list):
            files[plain] = "\n".join(content)
    return files


def converted(checkpoint: Path) -> Path:
    """Return the folder of a checkpoint in the user's cache, into which it is converted once.

    Raises:
        UserError: If it cannot be converted.
    """
    found = checkpoint.stat()
    identity = f"{checkpoint.resolve()} {found.st_size} {found.st_mtime_ns}"
    name = f"{checkpoint.stem}-{sha256(identity.encode()).hexdigest()[:16]}"
    folder = cache_folder() / "converted" / name
    if not folder.exists():
        with exclusive(folder.with_name(f"{name}.lock"), f"Another process converts {checkpoint.name}"):
            if not folder.exists():
                convert(checkpoint, folder)
    return folder

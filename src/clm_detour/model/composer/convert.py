"""Write the model of a Composer checkpoint as a Hugging Face folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from clm_detour.model import hf
from clm_detour.model.composer.checkpoint import SUFFIX, Checkpoint, read_checkpoint
from clm_detour.model.composer.flexbert import modernbert_config, modernbert_weights
from clm_detour.model.cpu.compiler import cache_folder
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.files import atomic_folder
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
        network = hf.without_weights(ModernBertForPretraining, config, None)
        hf.fill(network, weights, str(checkpoint), None)
        hf.save(network, temporary)


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


def as_folder(path: str) -> str:
    """Return the Hugging Face folder of a checkpoint `FILE.pt`, and any other path as it is.

    A checkpoint is converted once, into the user's cache.

    Raises:
        UserError: If it cannot be converted.
    """
    file = Path(path).expanduser()
    if file.suffix != SUFFIX or not file.is_file():
        return path
    found = file.stat()
    identity = f"{file.resolve()} {found.st_size} {found.st_mtime_ns}"
    folder = cache_folder() / "converted" / f"{file.stem}-{sha256(identity.encode()).hexdigest()[:16]}"
    if not (folder / hf.CONFIG).exists():
        with exclusive(folder.with_name(folder.name + ".lock"), f"Process {os.getpid()} converts {file.name}"):
            if not (folder / hf.CONFIG).exists():
                convert(file, folder)
    return str(folder)

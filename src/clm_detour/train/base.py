"""Whether `model.base` holds the weights that training starts from: names and shapes are compared, no weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_safetensors_metadata, snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM

from clm_detour.errors import UserError
from clm_detour.files import read_json
from clm_detour.model import hf
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.train.start import DECODER, base_config, read_base

BODY = "model."  # how the names of the body's weights begin in a model with a head
PICKLED = "pytorch_model*.bin"
Shapes = dict[str, tuple[int, ...]]


def check_base(path: str) -> None:
    """Check that `model.base` holds just the weights of a masked (or a causal) language model of its config.

    Only headers of the safetensors are read. Those of a hub id that is not in the cache come over the network.

    Raises:
        UserError: the base has no prediction head, is a classifier, has no safetensors, or its weights do not fit its config.
    """
    if read_base(path).model_type == DECODER:
        check_decoder(path)
        return
    config = base_config(path)
    wanted, found = ModernBertForPretraining.architecture, config.architectures
    if found and wanted not in found:
        raise without_head(path, " and ".join(found))
    shapes = read_shapes(path)
    if not any(name.startswith(BODY) for name in shapes):
        raise without_head(path, "ModernBertModel")
    network = hf.without_weights(ModernBertForPretraining, config, None)
    try:
        hf.fill(network, on_meta(shapes), path, None)
    except UserError as error:
        raise UserError(f"model.base: {error}") from None
    check_tied(path, config)


def without_head(path: str, found: str) -> UserError:
    """The error for a base that is not a language model."""
    return UserError(
        f"model.base: {path} holds a {found}, which lacks the prediction head of a masked language model that training starts "
        f"from; use the folder of the {ModernBertForPretraining.architecture} that it was made from."
    )


def check_decoder(path: str) -> None:
    """Check the weights of a causal ModernBERT in transformers' own class, which reads pickled ones too."""
    base_config(path)
    folder = local_folder(path)
    if folder is not None and not list(weight_files(folder)) and list(folder.glob(PICKLED)):
        return
    with torch.device("meta"):
        network: Any = AutoModelForCausalLM.from_config(read_base(path))
    expected = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    shapes = read_shapes(path)
    if network.config.tie_word_embeddings:
        shapes.setdefault(hf.DECODER, shapes.get(hf.EMBEDDING, ()))
    wrong = sorted(name for name in expected | shapes if expected.get(name) != shapes.get(name))
    if wrong:
        raise UserError(
            f"model.base: the weights of {path} are not those of its config ({', '.join(wrong[:5])}); use a folder that was saved whole."
        )


def on_meta(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Tensors that have shapes only."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def check_tied(path: str, config: Any) -> None:
    """Check that a decoder that is stored beside an embedding that it is tied to equals it."""
    folder = local_folder(path)
    if not config.tie_word_embeddings or folder is None:
        return
    tied = {}
    for file in weight_files(folder):
        with safe_open(file, "pt") as tensors:
            for name in {hf.EMBEDDING, hf.DECODER} & set(tensors.keys()):
                tied[name] = tensors.get_tensor(name)
    if len(tied) == 2:
        hf.check_tied(tied, f"model.base: {path}", "set tie_word_embeddings to false in its config")


def read_shapes(path: str) -> Shapes:
    """Read the name and shape of every weight of a folder or hub id.

    Raises:
        UserError: there are no safetensors, or a file is damaged or missing.
    """
    folder = local_folder(path)
    if folder is None:
        return remote_shapes(path)
    files = weight_files(folder)
    if not files:
        pickled = sorted(file.name for file in folder.glob(PICKLED))
        kind = f" but {pickled[0]}, which is not opened" if pickled else ""
        raise UserError(
            f"model.base: {path} has no {hf.WEIGHTS}{kind}; open the model with transformers and save it with save_pretrained, "
            "which writes that format."
        )
    shapes: Shapes = {}
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(f"model.base: {file} is missing or damaged ({error}); {hf.AGAIN}.") from None
    return shapes


def local_folder(path: str) -> Path | None:
    """The folder itself, or that of a hub id whose weights are in the cache."""
    if Path(path).exists() or Path(path).is_absolute():
        return Path(path)
    try:
        cached = Path(snapshot_download(path, local_files_only=True))
    except (OSError, ValueError):  # huggingface_hub's errors are of these kinds
        return None
    return cached if weight_files(cached) else None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder, those that its index names if there is one; they need not be there."""
    if (folder / hf.WEIGHTS).exists():
        return [folder / hf.WEIGHTS]
    if not (folder / hf.INDEX).exists():
        return []
    index = read_json(folder / hf.INDEX, hf.AGAIN)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict):
        raise UserError(
            f"{folder / hf.INDEX} does not say in which file each weight lies (weight_map); {hf.AGAIN}."
        )
    return [folder / name for name in sorted(set(places.values()))]


def remote_shapes(path: str) -> Shapes:
    """The shapes that the headers on the Hugging Face Hub tell."""
    try:
        files = get_safetensors_metadata(path).files_metadata
    except (
        Exception
    ) as error:  # no such model, no safetensors, no network: of kinds that differ between releases
        raise UserError(
            f"model.base: the safetensors of {path} are neither in the cache nor can they be looked at on the Hugging Face Hub "
            f"({type(error).__name__}); check the name and the network."
        ) from None
    return {name: tuple(info.shape) for file in files.values() for name, info in file.tensors.items()}

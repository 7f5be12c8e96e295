"""Check that `model.base` holds the weights that training needs, by names and shapes only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_safetensors_metadata, snapshot_download
from safetensors import safe_open
from transformers import AutoModelForCausalLM, ModernBertConfig

from clm_detour.model import hf
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.weights import (
    DECODER,
    EMBEDDING,
    PICKLED,
    Shapes,
    check_fit,
    check_tied,
    has_weights,
    held_by,
    read_shapes,
    weight_files,
)
from clm_detour.recipe import start
from clm_detour.utils.errors import UserError
from clm_detour.utils.hub import hub_reason


def check_base(path: str) -> None:
    """Check that `model.base` holds exactly the weights of a masked or causal language model of its config.

    Only the headers of safetensors are read. The headers of a hub id that is not in the cache come over the
    network.

    Raises:
        UserError: If the base has no prediction head, is a classifier, has no safetensors, or does not fit
            its config.
    """
    check = check_decoder if start.is_decoder(path) else check_masked
    try:
        check(path)
    except UserError as error:
        raise UserError(f"model.base: {error}") from None


def check_masked(path: str) -> None:
    """Check the weights of a masked language model."""
    config = start.base_config(path)
    wanted, found = ModernBertForPretraining.architecture, config.architectures
    if found and wanted not in found:
        raise without_head(path, " and ".join(found))
    shapes = shapes_of(path)
    if (held := held_by(shapes)) != "language model":
        raise without_head(path, hf.BODY_ALONE if held == "body" else held)
    network = hf.without_weights(ModernBertForPretraining, config, None)
    hf.fill(network, on_meta(shapes), path, None)
    check_tie(path, config)


def without_head(path: str, found: str) -> UserError:
    """Return the error for a base without a prediction head.

    Args:
        found: Name of the model that the base holds.
    """
    return UserError(
        f"{path} holds a {found}, which lacks the prediction head of a masked language model that training "
        f"starts from; use the folder of the {ModernBertForPretraining.architecture} that it was made from."
    )


def check_decoder(path: str) -> None:
    """Check the weights of a decoder. Pickled weights, which transformers reads too, are not checked."""
    start.base_config(path)
    folder = local_folder(path)
    if folder is not None and not has_weights(folder) and any(folder.glob(PICKLED)):
        return
    with torch.device("meta"):
        network: Any = AutoModelForCausalLM.from_config(start.read_base(path))
    expected = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    shapes = shapes_of(path)
    if network.config.tie_word_embeddings and EMBEDDING in shapes:
        shapes.setdefault(DECODER, shapes[EMBEDDING])
    check_fit(
        expected, on_meta(shapes), path, type(network).__name__, "use a folder that was saved completely"
    )


def on_meta(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return tensors without data on the meta device."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def check_tie(path: str, config: ModernBertConfig) -> None:
    """Check that decoder weights that are tied to the embeddings, but stored beside them, equal them."""
    folder = local_folder(path)
    if not config.tie_word_embeddings or folder is None:
        return
    tied = {}
    for file in weight_files(folder):
        with safe_open(file, "pt") as tensors:
            for name in {EMBEDDING, DECODER} & set(tensors.keys()):
                tied[name] = tensors.get_tensor(name)
    if len(tied) == 2:
        check_tied(tied, path, "set tie_word_embeddings to false in its config")


def shapes_of(path: str) -> Shapes:
    """Return the name and shape of every weight of a folder or hub id.

    Raises:
        UserError: If there are no safetensors, or a file is damaged or missing.
    """
    folder = local_folder(path)
    return remote_shapes(path) if folder is None else read_shapes(folder)


def local_folder(path: str) -> Path | None:
    """Return the folder itself, or the cache folder of a hub id; None if its weights are not in the cache."""
    path = hf.as_folder(path)
    if Path(path).exists() or Path(path).is_absolute():
        return Path(path)
    try:
        cached = Path(snapshot_download(path, local_files_only=True))
    except (OSError, ValueError):  # the types of huggingface_hub's errors
        return None
    return cached if has_weights(cached) else None


def remote_shapes(path: str) -> Shapes:
    """Return the shapes from the headers on the Hugging Face Hub."""
    try:
        files = get_safetensors_metadata(path).files_metadata
    except Exception as error:  # no such model, no safetensors, no network: the types differ between releases
        raise UserError(
            f"the safetensors of {path} are neither in the cache nor can they be looked at on the Hugging "
            f"Face Hub ({hub_reason(error)}); check the name and the network."
        ) from None
    return {name: tuple(info.shape) for file in files.values() for name, info in file.tensors.items()}

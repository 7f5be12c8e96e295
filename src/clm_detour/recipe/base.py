"""Check that `model.base` holds the weights that training needs, by names and shapes only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_safetensors_metadata, snapshot_download
from huggingface_hub.errors import NotASafetensorsRepoError
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from clm_detour.model import hf
from clm_detour.model.families import architecture_of, family_of
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.named_weights import named_shapes
from clm_detour.model.weights import (
    BODY,
    DECODER,
    EMBEDDING,
    PICKLED,
    Shapes,
    as_with_head,
    check_fit,
    check_tied,
    has_weights,
    held_by,
    on_meta,
    pickled_files,
    read_shapes,
    weight_files,
)
from clm_detour.recipe import start
from clm_detour.utils.errors import UserError
from clm_detour.utils.hub import hub_reason


def check_base(path: str) -> None:
    """Check that `model.base` holds exactly the weights of a language model of its config, or of its body.

    Only the headers of safetensors are read. The headers of a hub id that is not in the cache come over the
    network.

    Raises:
        UserError: If the base has no weights that can be read, or does not fit its config.
    """
    check = check_decoder if start.is_decoder(path) else check_masked
    try:
        check(path)
    except UserError as error:
        raise UserError(f"model.base: {error}") from None


def fills_masks(base: str) -> bool:
    """Return whether `model.base` can fill masks; a decoder, a body alone and a classifier cannot.

    Raises:
        UserError: If its config or its weights cannot be read.
    """
    if start.is_decoder(base):
        return False
    shapes = shapes_of(base)
    weights = None if shapes is None else named_shapes(shapes, start.base_config(base), base)
    return weights is None or held_by(weights) == "language model"


def check_masked(path: str) -> None:
    """Check the weights of a masked language model, or those of the body where there is no prediction head.

    The weights of a hub id that has only `pytorch_model.bin` are checked when they are read.
    """
    config = start.base_config(path)
    shapes = shapes_of(path)
    network = hf.without_weights(ModernBertForPretraining, config, None)
    if shapes is None:
        return
    weights = named_shapes(shapes, config, path)
    if held_by(weights) != "language model":
        weights = {**body_of(weights), **without_body(network)}
    hf.fill(network, weights, path, None)
    check_tie(path, config)


def body_of(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of the body, named as in a class with a head."""
    return {name: weight for name, weight in as_with_head(weights).items() if name.startswith(BODY)}


def without_body(network: ModernBertForPretraining) -> dict[str, torch.Tensor]:
    """Return the weights of a network that are not its body's, nor its embedding under another name."""
    tied = {DECODER} if hf.is_tied(network) else set()
    return {
        name: weight
        for name, weight in network.state_dict().items()
        if not name.startswith(BODY) and name not in tied
    }


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
    if shapes is None:
        return
    if network.config.tie_word_embeddings and EMBEDDING in shapes:
        shapes.setdefault(DECODER, shapes[EMBEDDING])
    check_fit(
        expected, on_meta(shapes), path, type(network).__name__, "use a folder that was saved completely"
    )


def check_tie(path: str, config: Any) -> None:
    """Check that decoder weights that are tied to the embeddings, but stored beside them, equal them."""
    folder = local_folder(path)
    if not architecture_of(config).tied or folder is None or not has_weights(folder):
        return
    stored = {name: stored_name(name, config) for name in (EMBEDDING, DECODER)}
    tied = {}
    for file in weight_files(folder):
        with safe_open(file, "pt") as tensors:
            for name in stored:
                if stored[name] in tensors.keys():  # noqa: SIM118
                    tied[name] = tensors.get_tensor(stored[name])
    if len(tied) == 2:
        check_tied(tied, path, "set tie_word_embeddings to false in its config")


def stored_name(name: str, config: Any) -> str:
    """Return the name of a weight in a folder of a masked language model."""
    return next(iter(family_of(config).to_theirs({name: torch.empty(0)}, "ForMaskedLM")))


def shapes_of(path: str) -> Shapes | None:
    """Return the name and shape of every weight of a folder or hub id.

    Returns None for a hub id that has only `pytorch_model.bin`, which must be fetched to be looked at.

    Raises:
        UserError: If there are no weights, or a file is damaged or missing.
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
    return cached if has_weights(cached) or pickled_files(cached) else None


def remote_shapes(path: str) -> Shapes | None:
    """Return the shapes from the headers on the Hugging Face Hub; None if there are no safetensors."""
    try:
        files = get_safetensors_metadata(path).files_metadata
    except NotASafetensorsRepoError:
        return None
    except Exception as error:  # no such model, no network: the types differ between releases
        raise UserError(
            f"the safetensors of {path} are neither in the cache nor can they be looked at on the Hugging "
            f"Face Hub ({hub_reason(error)}); check the name and the network."
        ) from None
    return {name: tuple(info.shape) for file in files.values() for name, info in file.tensors.items()}

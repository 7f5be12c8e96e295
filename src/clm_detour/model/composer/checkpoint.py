"""Read the weights, the config and the tokenizer of a Composer checkpoint, without running code of the file.

A checkpoint is a pickle, and a pickle names functions to call. `torch.load(weights_only=True)` calls only
those that rebuild tensors and refuses a file that names others, as a checkpoint of Composer does for the
clock and the random numbers. Here those names stand for `Unread`, which keeps nothing and does nothing.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor

from clm_detour.utils.errors import UserError


class Unread:
    """An object of a checkpoint that is not read."""

    def __init__(self, *_: Any, **__: Any): ...

    def __setstate__(self, _: Any) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """The parts of a checkpoint that make a model.

    Args:
        weights: Name -> tensor, mapped from the file.
        config: Keys of the model's config.
        tokenizer: Name of a file -> its content, as Composer stores them. Empty if there is no tokenizer.
    """

    weights: Mapping[str, Tensor]
    config: Mapping[str, Any]
    tokenizer: Mapping[str, Mapping[str, Any]]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of a `HuggingFaceModel`.

    Raises:
        UserError: If it is missing or damaged, is one part of a sharded checkpoint, or holds no model with
            its config.
    """
    state = load(path).get("state")
    state = state if isinstance(state, dict) else {}
    weights = state.get("model")
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise UserError(
            f"{path} holds no whole model (state.model); give a checkpoint that was saved on one GPU or "
            "under DDP, or gather the sharded one first."
        )
    saved = state.get("integrations", {}).get("huggingface", {})
    config = saved.get("model", {}).get("config", {}).get("content")
    if not isinstance(config, dict):
        raise UserError(
            f"{path} does not hold the config of its model (state.integrations.huggingface); give a "
            "checkpoint of Composer's HuggingFaceModel."
        )
    return Checkpoint(weights, config, saved.get("tokenizer") or {})


def load(path: Path) -> dict[str, Any]:
    """Return the content of a file of `torch.save`, with `Unread` in place of what is no plain data.

    Raises:
        UserError: If it is missing, damaged, or no such file.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the file of a checkpoint.")
    if not is_zipfile(path):
        raise UserError(f"{path} is no checkpoint of torch, or is damaged; fetch it again.")
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(Unread, name) for name in names]):
            content = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except (RuntimeError, OSError, ValueError, pickle.UnpicklingError):
        raise UserError(
            f"{path} is damaged, or it can be read only by running code that it names; fetch it again from "
            "its source."
        ) from None
    return content if isinstance(content, dict) else {}

"""Check the inputs of a forward before any work, so that a mistake gives a clear sentence.

The values of tensors on a GPU are not read, because the host would have to wait for them.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clm_detour.utils.errors import UserError


def check_causal(value: Any) -> bool:
    """Return the value as a bool.

    Raises:
        UserError: If it is not a bool.
    """
    if not isinstance(value, bool | np.bool_):
        raise UserError(f"causal is {value!r}; set it to True or False.")
    return bool(value)


def check_tensor(name: str, value: Any) -> None:
    """Raise a `UserError` unless the value is a tensor."""
    if not isinstance(value, Tensor):
        raise UserError(
            f"{name} is a {type(value).__name__}, not a tensor; a tokenizer gives tensors with "
            "return_tensors='pt'."
        )


def check_rows(input_ids: Tensor | None) -> tuple[int, int]:
    """Return the shape (B, L) of `input_ids`.

    Raises:
        UserError: If they have another number of dimensions, or are not a tensor.
    """
    check_tensor("input_ids", input_ids)
    assert input_ids is not None
    if input_ids.dim() != 2:
        raise UserError(f"input_ids has shape {tuple(input_ids.shape)}; it must be (rows, positions).")
    return input_ids.shape[0], input_ids.shape[1]


def check_inputs(input_ids: Tensor | None, inputs_embeds: Tensor | None, hidden_size: int) -> tuple[int, int]:
    """Return the shape (B, L) of the inputs: ids (B, L) or, in their place, embeddings (B, L, E).

    Raises:
        UserError: If both or neither are given, or they have another shape.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise UserError("Give either input_ids or inputs_embeds.")
    if inputs_embeds is None:
        return check_rows(input_ids)
    check_tensor("inputs_embeds", inputs_embeds)
    shape = tuple(inputs_embeds.shape)
    if len(shape) != 3 or shape[2] != hidden_size or not inputs_embeds.is_floating_point():
        raise UserError(
            f"inputs_embeds is {inputs_embeds.dtype} of shape {shape}; it must be floating point, (rows, "
            f"positions, {hidden_size})."
        )
    return shape[:2]


def check_longest(found: int, limit: int | None) -> None:
    """Check that no document is longer than the positions of the network.

    Args:
        found: Number of tokens of the longest document.
        limit: Number of positions; None if there is no limit.

    Raises:
        UserError: If one is longer.
    """
    if limit is not None and found > limit:
        raise UserError(
            f"A document has {found:,} tokens, but the model has positions for {limit:,}; cut documents "
            "there, and tell texts that share a row apart by document_ids or document_lengths."
        )


def check_shape(name: str, tensor: Tensor | None, shape: tuple[int, int]) -> None:
    """Check that a tensor, unless it is None, has the shape of `input_ids`.

    Raises:
        UserError: If it has another shape, or is not a tensor.
    """
    if tensor is None:
        return
    check_tensor(name, tensor)
    if tuple(tensor.shape) != shape:
        raise UserError(f"{name} has shape {tuple(tensor.shape)} but input_ids {shape}; they must be equal.")


def check_ids(name: str, one: str, ids: Tensor, entries: int, dtypes: Container[torch.dtype]) -> None:
    """Check that token ids have one of these types and are in the vocabulary.

    Args:
        name, one: Names of the ids and of one id, for the error.
        ids: The token ids.
        entries: Size of the vocabulary.
        dtypes: Allowed types.

    Raises:
        UserError: If they are not. Values are checked on a CPU only.
    """
    if ids.dtype not in dtypes:
        raise UserError(f"{name} are {ids.dtype}; give token ids as torch.long.")
    if ids.device.type != "cpu" or torch.compiler.is_compiling():
        return
    outside = ids[(ids < 0) | (ids >= entries)]
    if len(outside):
        raise UserError(
            f"A {one} is {int(outside[0])}, but the vocabulary has {entries} entries, 0 to {entries - 1}; "
            "encode the texts with the model's own tokenizer."
        )

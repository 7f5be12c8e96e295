"""What is given to a forward is looked at before any work, so that a mistake is a sentence and not an index error of torch's.

What is on a device is not read: nobody waits to see it.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clm_detour.utils.errors import UserError


def check_causal(value: Any) -> bool:
    """Return what the mask is set to.

    Raises:
        UserError: it is no bool.
    """
    if not isinstance(value, bool | np.bool_):
        raise UserError(f"causal is {value!r}; set it to True or False.")
    return bool(value)


def check_tensor(name: str, value: Any) -> None:
    """Raise a `UserError` if it is something else, such as a list."""
    if not isinstance(value, Tensor):
        raise UserError(
            f"{name} is a {type(value).__name__}, not a tensor; a tokenizer gives tensors with return_tensors='pt'."
        )


def check_rows(input_ids: Tensor | None) -> tuple[int, int]:
    """The shape (B, L) of `input_ids`.

    Raises:
        UserError: they have another, or are no tensor.
    """
    check_tensor("input_ids", input_ids)
    assert input_ids is not None
    if input_ids.dim() != 2:
        raise UserError(f"input_ids has shape {tuple(input_ids.shape)}; it must be (rows, positions).")
    return input_ids.shape[0], input_ids.shape[1]


def check_inputs(input_ids: Tensor | None, inputs_embeds: Tensor | None, hidden_size: int) -> tuple[int, int]:
    """The shape (B, L) of what goes into the network: ids or, in their place, embeddings (B, L, E).

    Raises:
        UserError: there are both or neither, or one has another shape.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise UserError("Give either input_ids or inputs_embeds.")
    if inputs_embeds is None:
        return check_rows(input_ids)
    check_tensor("inputs_embeds", inputs_embeds)
    shape = tuple(inputs_embeds.shape)
    if len(shape) != 3 or shape[2] != hidden_size or not inputs_embeds.is_floating_point():
        raise UserError(
            f"inputs_embeds is {inputs_embeds.dtype} of shape {shape}; it must be floating point, (rows, positions, {hidden_size})."
        )
    return shape[:2]


def check_shape(name: str, tensor: Tensor | None, shape: tuple[int, int]) -> None:
    """What comes beside `input_ids` has its shape.

    Raises:
        UserError: it has another, or is no tensor.
    """
    if tensor is None:
        return
    check_tensor(name, tensor)
    if tuple(tensor.shape) != shape:
        raise UserError(f"{name} has shape {tuple(tensor.shape)} but input_ids {shape}; they must be equal.")


def check_ids(name: str, one: str, ids: Tensor, entries: int, dtypes: Container[torch.dtype]) -> None:
    """Token ids are of one of these types and in the vocabulary.

    Args:
        name, one: what they are called, all of them and one.
        entries: of the vocabulary.

    Raises:
        UserError: they are not; a value is only seen on a CPU.
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

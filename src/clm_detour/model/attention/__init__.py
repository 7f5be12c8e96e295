"""Attention over documents laid end to end: one function with one signature and several back ends.

A back end is a module with the names of `Backend`. To add one, add the module and one entry in `BACKENDS`.
All are exact to their precision, and deterministic where `torch.use_deterministic_algorithms(True)` asks for
it.

Shapes: T tokens, H heads, D size of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clm_detour.model.attention import flash, flex, portable, varlen
from clm_detour.model.cpu import attention as onednn
from clm_detour.model.documents import Documents
from clm_detour.model.kernels import describe_heads
from clm_detour.model.precision import best_device
from clm_detour.utils.errors import UserError

AUTO = "auto"


class Attend(Protocol):
    """The function that a back end computes."""

    def __call__(
        self,
        q_THD: Tensor,
        k_THD: Tensor,
        v_THD: Tensor,
        documents: Documents,
        causal: bool,
        window: int | None,
    ) -> Tensor:
        """Compute `attention`."""


class Backend(Protocol):
    """A module with a back end."""

    NAME: str
    HEADS: range  # supported sizes
    attend: Attend

    def suits(self, device: str, dtype: torch.dtype) -> bool:
        """Return whether it is made for tensors like these. It may run on others, more slowly."""

    def unavailable(self) -> str | None:
        """Return why it cannot be used here, or None if it can."""


@dataclass(frozen=True)
class Choice:
    """A chosen back end, and the reason."""

    name: str
    reason: str


BACKENDS: dict[str, Backend] = {  # the best first
    backend.NAME: backend for backend in (flash, varlen, flex, onednn, portable)
}


@torch.compiler.disable  # it depends on the machine, not on tensors
def choose_backend(
    name: str | None = None,
    device: str | None = None,
    dtype: torch.dtype = torch.bfloat16,
    head_dim: int | None = None,
) -> Choice:
    """Choose the back end for a model that runs on `device` in `dtype`.

    Args:
        name: A key of BACKENDS. None or "auto" takes the best one that is made for these tensors and runs
            here.
        device: Type of the device. None is a GPU if there is one, else a CPU.
        dtype: Type of queries, keys and values: that of autocast, if it is on.
        head_dim: Size of a head. None is a usual one.

    Raises:
        UserError: If it is unknown, or does not run here.
    """
    if name is not None and name != AUTO:
        return _asked_for(name)
    device = device or best_device().type
    passed_over: list[str] = []
    for backend in BACKENDS.values():
        if not backend.suits(device, dtype):
            continue
        reason = _unfit(backend, head_dim) or backend.unavailable()
        if reason is None:
            here = f"the fastest that runs here for {dtype} on {device}{_release(backend.NAME)}"
            return Choice(backend.NAME, "; ".join([here, *passed_over]))
        passed_over.append(f"no {backend.NAME}: {reason}")
    raise AssertionError("the portable back end suits all and is always available")


def _unfit(backend: Backend, head_dim: int | None) -> str | None:
    if head_dim is None or head_dim in backend.HEADS:
        return None
    return f"it takes {describe_heads(backend.HEADS)}, not {head_dim}"


def _asked_for(name: str) -> Choice:
    if name not in BACKENDS:
        raise UserError(
            f"Attention back end {name!r} is not known; use one of {', '.join([AUTO, *BACKENDS])}."
        )
    if reason := BACKENDS[name].unavailable():
        raise UserError(f"Attention back end {name!r} does not run here: {reason}; use {AUTO!r}.")
    return Choice(name, f"asked for{_release(name)}")


def _release(name: str) -> str:
    return f", {flash.release()}" if name == flash.NAME else ""


def attention(
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    documents: Documents,
    causal: bool,
    window: int | None,
    backend: str,
) -> Tensor:
    """Compute softmax(q k / sqrt(D)) v, where a token sees only tokens of its own document.

    Args:
        q_THD, k_THD, v_THD: (T, H, D), rotated; with any strides, but a dense last dimension.
        documents: The documents.
        causal: Whether a token sees only itself and what is to its left.
        window: Number of tokens that a token sees on each side (on its left, if causal), inclusive. None is
            no limit.
        backend: A name that `choose_backend` returned.

    Returns:
        (T, H, D).
    """
    if documents.tokens == 0:
        return q_THD
    return BACKENDS[backend].attend(q_THD, k_THD, v_THD, documents, causal, window)

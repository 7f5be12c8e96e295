"""Attention over documents laid end to end: one function, one signature, several back ends.

A back end is a file of this folder with `NAME`, `unavailable()` (a reason, or None) and `attend(...)` of the
signature of `attention`; adding one is adding its file and one entry in `BACKENDS`. All are exact, and
deterministic where `torch.use_deterministic_algorithms(True)` asks for it; `flash` and `varlen` take half precision only.

Shapes: T tokens, H heads, D size of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clm_detour.errors import UserError
from clm_detour.model.attention import flash, flex, portable, varlen
from clm_detour.model.attention.kernels import HALF
from clm_detour.model.documents import Documents

AUTO = "auto"


class Attend(Protocol):
    """What a back end computes."""

    def __call__(
        self,
        q_THD: Tensor,
        k_THD: Tensor,
        v_THD: Tensor,
        documents: Documents,
        causal: bool,
        window: int | None,
    ) -> Tensor:
        """See `attention`."""


class Backend(Protocol):
    """A file of this folder."""

    NAME: str
    attend: Attend

    def unavailable(self) -> str | None:
        """Why it cannot be used here, or None if it can."""


@dataclass(frozen=True)
class Choice:
    """The back end taken, and why."""

    name: str
    reason: str


BACKENDS: dict[str, Backend] = {  # the best on CUDA first
    backend.NAME: backend for backend in (flash, varlen, flex, portable)
}


def choose_backend(
    name: str | None = None, device: str = "cuda", dtype: torch.dtype = torch.bfloat16
) -> Choice:
    """Choose for a model that runs on `device` in `dtype`.

    Args:
        name: a key of BACKENDS, or None or "auto" for the best one that runs there.
        device: its type.
        dtype: of queries, keys and values: that of autocast, if it is on.

    Raises:
        UserError: it is not known, or does not run here.
    """
    if name not in (None, AUTO):
        if name not in BACKENDS:
            raise UserError(
                f"Attention back end {name!r} is not known; use one of {', '.join([AUTO, *BACKENDS])}."
            )
        if reason := BACKENDS[name].unavailable():
            raise UserError(f"Attention back end {name!r} does not run here: {reason}; use {AUTO!r}.")
        return Choice(name, f"asked for{_release(name)}")
    if not torch.cuda.is_available():
        return Choice(portable.NAME, "there is no CUDA device, for which the others are made")
    if device != "cuda" or dtype not in HALF:
        return Choice(portable.NAME, f"the others are made for bf16 on CUDA, this is {dtype} on {device}")
    passed_over: list[str] = []
    for backend in BACKENDS.values():
        reason = backend.unavailable()
        if reason is None:
            here = f"the fastest that runs here{_release(backend.NAME)}"
            return Choice(backend.NAME, "; ".join([here, *passed_over]))
        passed_over.append(f"no {backend.NAME}: {reason}")
    raise AssertionError("the portable back end is always available")


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
    """softmax(q k / sqrt(D)) v, where a token sees only tokens of its own document.

    Args:
        q_THD, k_THD, v_THD: (T, H, D), rotated; any strides with the last dimension dense.
        causal: a token sees itself and what is left of it.
        window: a token sees at most this many tokens on each side of it (on its left, if causal), inclusive. None: no limit.
        backend: a name that `choose_backend` gave.

    Returns:
        (T, H, D).
    """
    if documents.tokens == 0:
        return q_THD
    return BACKENDS[backend].attend(q_THD, k_THD, v_THD, documents, causal, window)

"""FlashAttention: the fastest kernels, half precision on CUDA; release 2, 3 or 4, the best that is installed.

Release 3 is for Hopper alone; release 4, still in beta, for Blackwell and Hopper, where 3 comes first. The
forward is deterministic; under `torch.use_deterministic_algorithms(True)` the backward is too, more slowly.

Shapes: T tokens, H heads, D size of a head.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from clm_detour.model.documents import Documents
from clm_detour.model.kernels import FLASH_HEADS, check_flash, half_on_cuda, no_gpu, sides

NAME = "flash"
HEADS = FLASH_HEADS
suits = half_on_cuda
FUNCTION = "flash_attn_varlen_func"
PASSED = frozenset(
    ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k", "causal", "window_size", "deterministic")
)


@dataclass(frozen=True)
class Release:
    """A major release.

    Args:
        module: has FUNCTION.
        capabilities: major compute capabilities on which it is used.
        no_limit: how it is told that a side of the window has none.
        takes: parameters that FUNCTION must have; older versions, which lack some, are not used.
    """

    name: str
    module: str
    capabilities: tuple[int, ...]
    no_limit: int | None = -1
    takes: frozenset[str] = PASSED


RELEASES = (  # the best first
    Release("FlashAttention 3", "flash_attn_interface", (9,)),
    # betas without `qv` (before 4.0.0b10) may lack a backward for documents on Hopper
    Release("FlashAttention 4", "flash_attn.cute", (9, 10, 11), None, PASSED | {"qv"}),
    Release("FlashAttention 2", "flash_attn", (8, 9, 10, 11, 12)),
)


@dataclass(frozen=True)
class Kernel:
    """A release that is installed, and its FUNCTION."""

    release: Release
    run: Callable[..., Any]


def unavailable() -> str | None:
    """Why it cannot run here, or None if it can."""
    if reason := no_gpu():
        return reason
    found = find(torch.cuda.get_device_capability()[0])
    return None if isinstance(found, Kernel) else found


def release() -> str:
    """The release that runs here."""
    return _kernel().release.name


def attend(
    q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, documents: Documents, causal: bool, window: int | None
) -> Tensor:
    """See `clm_detour.model.attention.attention`.

    Raises:
        UserError: not on CUDA, not in half precision, or heads of an unusual size.
    """
    check_flash(NAME, q_THD)
    kernel = _kernel()
    output = kernel.run(  # by name: release 4 has another order
        q_THD,
        k_THD,
        v_THD,
        cu_seqlens_q=documents.cu_seqlens,
        cu_seqlens_k=documents.cu_seqlens,
        max_seqlen_q=documents.longest,
        max_seqlen_k=documents.longest,
        causal=causal,
        window_size=sides(causal, window, kernel.release.no_limit),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return output[0] if isinstance(output, tuple) else output  # 4, and 3 at first, add the log-sum-exp


def _kernel() -> Kernel:
    found = find(torch.cuda.get_device_capability()[0])
    assert isinstance(found, Kernel), found
    return found


@cache
def find(capability: int) -> Kernel | str:
    """The best release for GPUs of this major compute capability, or why there is none."""
    problems = []
    for candidate in RELEASES:
        if capability in candidate.capabilities:
            found = _load(candidate)
            if isinstance(found, Kernel):
                return found
            problems += [found] if found else []
    return "; ".join(problems) or f"no FlashAttention for compute capability {capability}.x is installed"


def _load(candidate: Release) -> Kernel | str | None:
    """The release, why it cannot be used, or None if it is not there."""
    try:
        run = getattr(import_module(candidate.module), FUNCTION, None)
    except Exception as error:  # a build for another torch or CUDA fails in many ways
        if isinstance(error, ModuleNotFoundError) and f"{candidate.module}.".startswith(f"{error.name}."):
            return None
        return f"{candidate.module} does not import ({str(error).strip().partition(chr(10))[0]})"
    if run is None:  # release 4 alone leaves an empty flash_attn around flash_attn.cute
        return None
    if candidate.takes <= inspect.signature(run).parameters.keys():
        return Kernel(candidate, run)
    return f"the {candidate.name} that is installed is too old"

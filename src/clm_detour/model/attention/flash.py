"""FlashAttention, the fastest kernels: half precision on CUDA, by the best installed release of 2, 3 and 4.

Release 3 is for Hopper alone; release 4, still in beta, for Blackwell and Hopper, where 3 is preferred. The
forward is deterministic. Under `torch.use_deterministic_algorithms(True)` the backward is too, more slowly.

Shapes: T tokens, H heads, D size of a head.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from clm_detour.model.attention import probe
from clm_detour.model.documents import Documents
from clm_detour.model.kernels import FLASH_HEADS, check_flash, half_on_cuda, no_gpu, window_sides

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
        name: Name for people.
        module: Module with FUNCTION.
        capabilities: Major compute capabilities on which it is used.
        no_limit: Value that stands for a side of the window without a limit.
        takes: Parameters that FUNCTION must have. Older versions, which lack some, are not used.
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
    """An installed release, and its FUNCTION."""

    release: Release
    run: Callable[..., Any]


def unavailable() -> str | None:
    """Return why it cannot run here, or None if it can."""
    if reason := no_gpu():
        return reason
    found = _found()
    return None if isinstance(found, Kernel) else found


def release() -> str:
    """Return the name of the release that runs here."""
    return _kernel().release.name


def attend(
    q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, documents: Documents, causal: bool, window: int | None
) -> Tensor:
    """Compute `clm_detour.model.attention.attention`.

    Raises:
        UserError: If the tensors are not on CUDA, not in half precision, or have heads of an unsupported
            size.
    """
    check_flash(NAME, q_THD)
    return _run(_kernel(), q_THD, k_THD, v_THD, documents, causal, window)


def _run(
    kernel: Kernel,
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    documents: Documents,
    causal: bool,
    window: int | None,
) -> Tensor:
    output = kernel.run(  # by name, because the order differs in release 4
        q_THD,
        k_THD,
        v_THD,
        cu_seqlens_q=documents.cu_seqlens,
        cu_seqlens_k=documents.cu_seqlens,
        max_seqlen_q=documents.longest,
        max_seqlen_k=documents.longest,
        causal=causal,
        window_size=window_sides(causal, window, kernel.release.no_limit),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return output[0] if isinstance(output, tuple) else output  # 4 and early versions of 3 add the log-sum-exp


def _kernel() -> Kernel:
    found = _found()
    assert isinstance(found, Kernel), found
    return found


def _found() -> Kernel | str:
    return find(torch.cuda.get_device_capability()[0], torch.are_deterministic_algorithms_enabled())


@cache
def find(capability: int, deterministic: bool) -> Kernel | str:
    """Return the best release that works on this GPU, or why there is none.

    Args:
        capability: Major compute capability of the GPU.
        deterministic: Whether torch's deterministic mode is on, in which a release may not work.
    """
    problems = []
    for candidate in RELEASES:
        if capability in candidate.capabilities:
            found = _load(candidate)
            if isinstance(found, Kernel):
                problem = probe.problem(partial(_run, found))
                if problem is None:
                    return found
                found = f"{candidate.name} does not work here ({problem})"
            problems += [found] if found else []
    return "; ".join(problems) or f"no FlashAttention for compute capability {capability}.x is installed"


def _load(candidate: Release) -> Kernel | str | None:
    """Return the release, or why it cannot be used, or None if it is not installed."""
    try:
        run = getattr(import_module(candidate.module), FUNCTION, None)
    except Exception as error:  # a build for another torch or CUDA can raise anything
        if isinstance(error, ModuleNotFoundError) and f"{candidate.module}.".startswith(f"{error.name}."):
            return None
        return f"{candidate.module} does not import ({str(error).strip().partition(chr(10))[0]})"
    if run is None:  # release 4 alone leaves an empty flash_attn around flash_attn.cute
        return None
    if candidate.takes <= inspect.signature(run).parameters.keys():
        return Kernel(candidate, run)
    return f"the {candidate.name} that is installed is too old"

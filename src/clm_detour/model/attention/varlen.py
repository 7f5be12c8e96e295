"""torch's own FlashAttention over documents, `varlen_attn`: half precision on CUDA, from torch 2.11 on.

It is an operator that a graph can contain, so `torch.compile` compiles a layer with its attention. The shapes
of such a graph are fixed: `Documents.padded` adds empty documents, for which the kernels compute nothing.

Under `torch.use_deterministic_algorithms(True)` torch takes the deterministic backward by itself.

Shapes: T tokens, H heads, D size of a head.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from clm_detour.model.attention import probe
from clm_detour.model.documents import Documents
from clm_detour.model.kernels import FLASH_HEADS, check_flash, half_on_cuda, no_gpu, window_sides

Operator = Callable[..., Tensor]
NAME = "varlen"
HEADS = FLASH_HEADS
suits = half_on_cuda


def unavailable() -> str | None:
    """Return why it cannot run here, or None if it can."""
    if reason := no_gpu():
        return reason
    if find() is None:
        return f"torch {torch.__version__} has no varlen_attn with a window, which came with torch 2.11"
    problem = probe.problem(attend)
    return None if problem is None else f"torch's varlen_attn does not work here ({problem})"


def attend(
    q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, documents: Documents, causal: bool, window: int | None
) -> Tensor:
    """Compute `clm_detour.model.attention.attention`.

    Raises:
        UserError: If the tensors are not on CUDA, not in half precision, or have heads of an unsupported
            size.
    """
    run = operator_for(q_THD)
    cu_seqlens, longest = documents.cu_seqlens, documents.longest
    # the window implies the mask: (-1, 0) is causal
    return run(
        q_THD,
        k_THD,
        v_THD,
        cu_seqlens,
        cu_seqlens,
        longest,
        longest,
        window_size=window_sides(causal, window),
    )


def operator_for(q_THD: Tensor) -> Operator:
    """Return `varlen_attn`, after the check that it takes queries like these.

    Raises:
        UserError: If it does not.
    """
    check_flash(NAME, q_THD)
    run = find()
    assert run is not None
    return run


@cache
def find() -> Operator | None:
    """Return `varlen_attn`, if this torch has it with a window, else None."""
    try:
        run = import_module("torch.nn.attention.varlen").varlen_attn
    except ImportError:
        return None
    return run if "window_size" in inspect.signature(run).parameters else None

"""FlashAttention for CPUs in bf16, compiled on first use with the oneDNN that torch contains.

torch's own kernel runs at a third of such a CPU's peak in bf16; this one at up to three quarters, and it
knows documents and windows. It is deterministic, whatever the number of threads.

Shapes: T tokens, H heads, D size of a head.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clm_detour.model.cpu.compiler import AVX512, library
from clm_detour.model.documents import Documents
from clm_detour.model.kernels import OTHER, check_heads, window_sides
from clm_detour.utils.errors import UserError

NAME = "onednn"
HEADS = range(2, 257, 2)
CODE = (Path(__file__).parent, (*AVX512, "-mavx512bf16"))
OFF = (
    "oneDNN is switched off or held to older instructions (torch.backends.mkldnn.enabled, ONEDNN_MAX_CPU_ISA)"
)


def suits(device: str, dtype: torch.dtype) -> bool:
    """Return whether tensors are in bf16 on a CPU."""
    return device == "cpu" and dtype == torch.bfloat16


@cache
def unavailable() -> str | None:
    """Return why it cannot run here, or None if it can."""
    multiplies_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    if not (torch.backends.mkldnn.is_available() and multiplies_bf16()):
        return "this CPU or this torch does not multiply bf16 (AVX512-BF16, oneDNN)"
    found = library(*CODE)
    if isinstance(found, str):
        return found
    return None if found.works() else OFF


@torch.compiler.disable
def attend(
    q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, documents: Documents, causal: bool, window: int | None
) -> Tensor:
    """Compute `clm_detour.model.attention.attention`.

    Raises:
        UserError: If the tensors are not on a CPU, not in bf16, have heads of an odd or unsupported size, or
            oneDNN was switched off.
    """
    device = q_THD.device.type
    if not suits(device, q_THD.dtype):
        raise UserError(
            f"The attention back end {NAME!r} computes in bf16 on a CPU but the model runs in {q_THD.dtype} "
            f"on {device}; run it there under torch.autocast('cpu', torch.bfloat16) or choose 'auto' {OTHER}."
        )
    check_heads(NAME, q_THD.shape[-1], HEADS)
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q_THD, k_THD, v_THD))
    return _Attention.apply(q, k, v, documents.cu_seqlens, causal, window)


class _Batch(ctypes.Structure):
    """The struct `Batch` of kernel.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "k", "v")),
        *((name, 3 * ctypes.c_int64) for name in ("token_strides", "head_strides")),
        ("ends", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("documents", "T", "H", "D", "left", "right")),
        ("scale", ctypes.c_float),
    ]


def _batch(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, causal: bool, window: int | None) -> _Batch:
    inputs, whole = (q, k, v), len(q)
    return _Batch(
        *(x.data_ptr() for x in inputs),
        *((3 * ctypes.c_int64)(*(x.stride(dim) for x in inputs)) for dim in (0, 1)),
        ends.data_ptr(),
        len(ends) - 1,
        *q.shape,
        *window_sides(causal, window, no_limit=whole),
        q.shape[-1] ** -0.5,
    )


def _call(function: str, batch: _Batch, *tensors: Tensor) -> None:
    code = library(*CODE)
    assert isinstance(code, ctypes.CDLL), code
    if not code.works():
        raise UserError(f"The attention back end {NAME!r} no longer runs: {OFF}; choose 'portable' {OTHER}.")
    code[function](ctypes.byref(batch), *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, ends: Tensor, *sight: Any) -> Tensor:
        out = q.new_empty(q.shape)
        log_sum_HT = q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)
        _call("attention_forward", _batch(q, k, v, ends, *sight), out, log_sum_HT)
        ctx.save_for_backward(q, k, v, ends, out, log_sum_HT)
        ctx.sight = sight
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, ends, out, log_sum_HT = ctx.saved_tensors
        gradients = [q.new_empty(q.shape) for _ in range(3)]
        batch = _batch(q, k, v, ends, *ctx.sight)
        _call("attention_backward", batch, out, log_sum_HT, d_out.contiguous(), *gradients)
        return (*gradients, None, None, None)

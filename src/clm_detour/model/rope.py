"""Rotary positions: angles once per forward, shared by all layers of a kind.

A head's first half is the real part, its second half the imaginary part, as in transformers and FlashAttention.

Shapes: T tokens, H heads, D size of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosine and sine of each token's angles, both (T, 1, D / 2) fp32."""

    cos: Tensor
    sin: Tensor


def rotation(positions_T: Tensor, head_dim: int, theta: float) -> Rotation:
    """Angles of tokens at these positions: position / theta ** (2 i / D)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_T.device) / head_dim
    angles = torch.outer(positions_T.float(), 1.0 / theta**exponents).unsqueeze(1)
    return Rotation(angles.cos(), angles.sin())


def rotate(qkv_T3HD: Tensor, by: Rotation) -> tuple[Tensor, Tensor, Tensor]:
    """Rotate queries and keys, each (T, H, D); values pass."""
    return _Rotate.apply(qkv_T3HD, by.cos, by.sin)


class _Rotate(torch.autograd.Function):
    """One allocation forward and one backward, in place of the seven and more of `q * cos + rotate_half(q) * sin`."""

    @staticmethod
    def forward(ctx: Any, qkv_T3HD: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        rotated = torch.empty_like(qkv_T3HD)
        for part in (0, 1):
            _rotate_into(rotated[:, part], qkv_T3HD[:, part], cos, sin)
        rotated[:, 2] = qkv_T3HD[:, 2]
        return rotated[:, 0], rotated[:, 1], rotated[:, 2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        tokens, heads, size = grads[0].shape
        grad = grads[0].new_empty(tokens, 3, heads, size)
        for part in (0, 1):
            _rotate_into(grad[:, part], grads[part], cos, -sin)
        grad[:, 2] = grads[2]
        return grad, None, None


def _rotate_into(out_THD: Tensor, x_THD: Tensor, cos: Tensor, sin: Tensor) -> None:
    half = x_THD.shape[-1] // 2
    real, imaginary = x_THD[..., :half], x_THD[..., half:]
    if x_THD.dtype == cos.dtype:
        torch.mul(real, cos, out=out_THD[..., :half]).addcmul_(imaginary, sin, value=-1)
        torch.mul(imaginary, cos, out=out_THD[..., half:]).addcmul_(real, sin)
    else:  # half precision: rotate in fp32, round once
        out_THD[..., :half] = real * cos - imaginary * sin
        out_THD[..., half:] = imaginary * cos + real * sin

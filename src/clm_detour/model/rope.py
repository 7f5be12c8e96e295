"""Rotary positions. The angles are computed once per forward and shared by all layers of a kind.

A head's first half is the real part, its second half the imaginary part, as in transformers and
FlashAttention:
    real' = real cos - imaginary sin,    imaginary' = imaginary cos + real sin
Over a whole head, with zeros in the tables where a half has no such term, this is
    x' = x cos + (x half a head to the right) left + (x half a head to the left) right
On a CPU the tables are as wide as all heads together, so that three passes over dense rows suffice; loops
over the 32 numbers of half a head took three times as long. This takes about as much memory as the
activations of one more layer. Elsewhere the tables are as wide as one head and are broadcast.

On a GPU with Triton, `gpu/rotary` rotates in place.

Shapes: T tokens, H heads, D size of a head, W width of the tables.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from clm_detour.model.gpu import rotary


class Rotation(NamedTuple):
    """Tables of (T, 1, W) fp32: cosines; minus sines for real parts; sines for imaginary parts."""

    cos: Tensor
    left: Tensor
    right: Tensor


def rotation(positions_T: Tensor, heads: int, head_dim: int, theta: float) -> Rotation:
    """Return the tables for tokens at these positions. Angle i is position / theta ** (2 i / D)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_T.device) / head_dim
    angles = torch.outer(positions_T.float(), 1.0 / theta**exponents).unsqueeze(1)
    cos, sin = angles.cos(), angles.sin()
    nothing = torch.zeros_like(sin)
    copies = heads if positions_T.device.type == "cpu" else 1
    halves = ((cos, cos), (-sin, nothing), (nothing, sin))
    return Rotation(*(torch.cat(pair, dim=-1).repeat(1, 1, copies) for pair in halves))


def rotate(qkv_T3HD: Tensor, by: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return rotated queries, rotated keys, and values, (T, H, D) each. `qkv_T3HD` may be overwritten.

    Without rotary positions (`by` is None) all three are views. Where queries and keys are not rotated in
    place, values are copied: as a view they would keep the
    unrotated ones in memory until the backward.
    """
    if by is None:
        q_THD, k_THD, v_THD = qkv_T3HD.unbind(1)  # its backward stacks the three gradients once
        return q_THD, k_THD, v_THD
    if rotary.takes(qkv_T3HD) and rotary.is_dense(qkv_T3HD):
        half = qkv_T3HD.shape[-1] // 2
        return rotary.rotate_in_place(qkv_T3HD, by.cos[:, 0, :half], by.right[:, 0, half : 2 * half])
    if torch.compiler.is_compiling():
        return _rotate_plainly(qkv_T3HD, by)
    return _Rotate.apply(qkv_T3HD, *by)


def _rotate_plainly(qkv_T3HD: Tensor, by: Rotation) -> tuple[Tensor, Tensor, Tensor]:
    """Rotate by the definition, which a compiler fuses."""
    size = qkv_T3HD.shape[-1]
    cos, sin = by.cos[:, None, :, : size // 2], by.right[:, None, :, size // 2 : size]
    wide = torch.promote_types(qkv_T3HD.dtype, torch.float32)
    real, imaginary = qkv_T3HD[:, :2].to(wide).chunk(2, dim=-1)
    turned = torch.cat([real * cos - imaginary * sin, imaginary * cos + real * sin], dim=-1)
    q_THD, k_THD = turned.to(qkv_T3HD.dtype).unbind(1)
    return q_THD, k_THD, qkv_T3HD[:, 2].clone()


class _Rotate(torch.autograd.Function):
    """A rotation that writes each result once, and all gradients into that of the projection."""

    @staticmethod
    def forward(ctx: Any, qkv_T3HD: Tensor, *by: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(*by)
        rotated = [torch.empty_like(qkv_T3HD[:, part]) for part in (0, 1)]
        for part in (0, 1):
            _rotate_into(rotated[part], qkv_T3HD[:, part], Rotation(*by), sign=1)
        return rotated[0], rotated[1], qkv_T3HD[:, 2].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        by = Rotation(*ctx.saved_tensors)
        tokens, heads, size = grads[0].shape
        grad = grads[0].new_empty(tokens, 3, heads, size)
        for part in (0, 1):
            _rotate_into(grad[:, part], grads[part], by, sign=-1)
        grad[:, 2] = grads[2]
        return grad, None, None, None


def _rotate_into(out_THD: Tensor, x_THD: Tensor, by: Rotation, sign: int) -> None:
    """Rotate by the angles, or back if `sign` is -1. Half precision is rotated in fp32 and rounded once."""
    tokens, heads, size = x_THD.shape
    half, width = size // 2, by.cos.shape[-1]
    wide = (tokens, heads * size // width, width)
    x = x_THD.to(torch.promote_types(x_THD.dtype, torch.float32)).reshape(wide)
    same = x.dtype == out_THD.dtype
    out = out_THD.view(wide) if same else torch.empty_like(x)
    torch.mul(x, by.cos, out=out)
    out[..., :-half].addcmul_(x[..., half:], by.left[..., :-half], value=sign)
    out[..., half:].addcmul_(x[..., :-half], by.right[..., half:], value=sign)
    if not same:
        out_THD.copy_(out.view_as(out_THD))

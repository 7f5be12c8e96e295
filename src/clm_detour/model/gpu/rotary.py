"""Rotary positions on a GPU: queries and keys are rotated in place, and values stay where they are.

The forward pass reads and writes queries and keys once: 8 bytes for each token and hidden unit in bf16, where
rotated copies of queries and keys and a copy of the values take 12. The backward pass packs the gradients of
queries, keys and values, which attention returns apart, and rotates them back on the way: 12 bytes.

liger-kernel's rotary kernel is in place as well, but wants dense queries and keys. Views of a packed
projection are copied first, and the gradients are packed by a further kernel.

Both kernels are operators of torch, so a graph that `torch.compile` makes contains them. On a CPU the
operators compute the definition, for tests.

Shapes: T tokens, H heads, D size of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clm_detour.model.compiling import cannot_compile
from clm_detour.model.documents import power_of_two

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
ELEMENTS = 2048  # pairs that a program computes, as far as a token has no more


def takes(heads: Tensor) -> bool:
    """Return whether the kernels rotate queries like these, (..., D), on this machine."""
    return heads.is_cuda and heads.dtype in DTYPES and heads.shape[-1] % 2 == 0 and runs_here()


@torch.compiler.assume_constant_result  # it depends on the machine, not on tensors
def runs_here() -> bool:
    """Return whether Triton can compile for a GPU here."""
    return cannot_compile("cuda") is None


def is_dense(qkv_T3HD: Tensor) -> bool:
    """Return whether the projections of each token lie end to end."""
    heads, size = qkv_T3HD.shape[2:]
    return qkv_T3HD.stride()[1:] == (heads * size, size, 1)


def rotate_in_place(qkv_T3HD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rotated queries, rotated keys, and values, (T, H, D) each, as views of `qkv_T3HD`.

    Args:
        qkv_T3HD: The projections, which are overwritten. Nothing else may need them unrotated; the backward
            of a linear layer does not.
        cos_TD, sin_TD: Cosines and sines, fp32, for the D/2 pairs of each token.
    """
    return _InPlace.apply(qkv_T3HD, cos_TD, sin_TD)


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv_T3HD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cos_TD, sin_TD)
        turned = qkv_T3HD.detach()
        rotate_packed(turned, cos_TD, sin_TD)
        q_THD, k_THD, v_THD = turned.unbind(1)
        return q_THD, k_THD, v_THD

    @staticmethod
    def backward(ctx: Any, *grads_THD: Tensor) -> tuple[Tensor, None, None]:
        return pack_rotated_back(*grads_THD, *ctx.saved_tensors), None, None


@torch.library.custom_op("clm_detour::rotate_packed", mutates_args=("qkv_T3HD",))
def rotate_packed(qkv_T3HD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> None:
    """Rotate queries and keys in place, by the definition."""
    real, imaginary = qkv_T3HD[:, :2].float().chunk(2, dim=-1)
    cos, sin = cos_TD[:, None, None], sin_TD[:, None, None]
    turned = torch.cat([real * cos - imaginary * sin, imaginary * cos + real * sin], dim=-1)
    qkv_T3HD[:, :2] = turned.to(qkv_T3HD.dtype)


@rotate_packed.register_kernel("cuda")
def launch_rotate_packed(qkv_T3HD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> None:
    """Rotate queries and keys in place, by the kernel."""
    from clm_detour.model.gpu import rotary_kernels

    tokens = len(qkv_T3HD)
    sizes = block(qkv_T3HD.shape[2], qkv_T3HD.shape[3], parts=2)
    with torch.cuda.device_of(qkv_T3HD):
        rotary_kernels.rotate_packed[programs(tokens, sizes)](
            qkv_T3HD, cos_TD, sin_TD, tokens, qkv_T3HD.stride(0), cos_TD.stride(0), **sizes
        )


@rotate_packed.register_fake
def _(qkv_T3HD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> None:
    return None


@torch.library.custom_op("clm_detour::pack_rotated_back", mutates_args=())
def pack_rotated_back(q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Return gradients of queries and keys rotated back, and of values, (T, 3, H, D), by the definition."""
    packed = torch.stack((q_THD, k_THD, v_THD), dim=1)
    rotate_packed(packed, cos_TD, -sin_TD)
    return packed


@pack_rotated_back.register_kernel("cuda")
def launch_pack_rotated_back(
    q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, cos_TD: Tensor, sin_TD: Tensor
) -> Tensor:
    """Return the same by the kernel."""
    from clm_detour.model.gpu import rotary_kernels

    tokens, heads, size = q_THD.shape
    grads = [grad if grad.stride(-1) == 1 else grad.contiguous() for grad in (q_THD, k_THD, v_THD)]
    packed = q_THD.new_empty(tokens, 3, heads, size)
    sizes = block(heads, size, parts=1)
    strides = [stride for grad in grads for stride in grad.stride()[:2]]
    with torch.cuda.device_of(packed):
        rotary_kernels.pack_rotated_back[programs(tokens, sizes)](
            *grads, packed, cos_TD, sin_TD, tokens, *strides, cos_TD.stride(0), **sizes
        )
    return packed


@pack_rotated_back.register_fake
def _(q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    tokens, heads, size = q_THD.shape
    return q_THD.new_empty(tokens, 3, heads, size)


def block(heads: int, size: int, parts: int) -> dict[str, int]:
    """Return the constants of a kernel that computes `parts` times H heads of a token at once."""
    padded_heads, padded_half = power_of_two(parts * heads), power_of_two(size // 2)
    return {
        "HEADS": heads,
        "HALF": size // 2,
        "PADDED_HEADS": padded_heads,
        "PADDED_HALF": padded_half,
        "BLOCK": max(ELEMENTS // (padded_heads * padded_half), 1),
    }


def programs(tokens: int, sizes: dict[str, int]) -> tuple[int]:
    """Return the number of programs that compute all tokens."""
    return (-(-tokens // sizes["BLOCK"]),)

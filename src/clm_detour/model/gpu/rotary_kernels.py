"""The Triton kernels of `model.gpu.rotary`. Only that module imports this one, where Triton is installed.

A program computes BLOCK tokens with all heads. Rotations are computed in fp32 and rounded once.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def store_rotated(source, target, cosine, sine, mask, HALF: tl.constexpr):
    """Store pairs of numbers, of which `source` and `target` address the first, rotated by an angle."""
    real = tl.load(source, mask=mask, other=0.0).to(tl.float32)
    imaginary = tl.load(source + HALF, mask=mask, other=0.0).to(tl.float32)
    kind = target.dtype.element_ty
    tl.store(target, (real * cosine - imaginary * sine).to(kind), mask=mask)
    tl.store(target + HALF, (imaginary * cosine + real * sine).to(kind), mask=mask)


@triton.jit
def rotate_packed(
    qkv,
    cos,
    sin,
    tokens,
    row,
    table_row,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    PADDED_HEADS: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Rotate queries and keys, (T, 3, H, D) with rows of `row` elements, in place."""
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None, None]
    head = tl.arange(0, PADDED_HEADS)[None, :, None]  # queries, then keys: neighbors in memory
    pair = tl.arange(0, PADDED_HALF)[None, None, :]
    here = (token < tokens) & (pair < HALF)
    cosine = tl.load(cos + token.to(tl.int64) * table_row + pair, mask=here, other=0.0)
    sine = tl.load(sin + token.to(tl.int64) * table_row + pair, mask=here, other=0.0)
    mask = here & (head < 2 * HEADS)
    place = qkv + token.to(tl.int64) * row + head * (2 * HALF) + pair
    store_rotated(place, place, cosine, sine, mask, HALF)


@triton.jit
def pack_rotated_back(
    grad_q,
    grad_k,
    grad_v,
    packed,
    cos,
    sin,
    tokens,
    q_row,
    q_head,
    k_row,
    k_head,
    v_row,
    v_head,
    table_row,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    PADDED_HEADS: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradients of queries and keys, rotated back, and of values into (T, 3, H, D), which is dense.

    Gradients are (T, H, D) with the given strides of tokens and heads, and a dense last dimension.
    """
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None, None]
    head = tl.arange(0, PADDED_HEADS)[None, :, None]
    pair = tl.arange(0, PADDED_HALF)[None, None, :]
    wide = token.to(tl.int64)
    here = (token < tokens) & (pair < HALF)
    cosine = tl.load(cos + wide * table_row + pair, mask=here, other=0.0)
    sine = tl.load(sin + wide * table_row + pair, mask=here, other=0.0)
    mask = here & (head < HEADS)
    out = packed + wide * (6 * HEADS * HALF) + head * (2 * HALF) + pair
    store_rotated(grad_q + wide * q_row + head * q_head + pair, out, cosine, -sine, mask, HALF)
    out += 2 * HEADS * HALF
    store_rotated(grad_k + wide * k_row + head * k_head + pair, out, cosine, -sine, mask, HALF)
    out += 2 * HEADS * HALF
    place = grad_v + wide * v_row + head * v_head + pair
    tl.store(out, tl.load(place, mask=mask, other=0.0), mask=mask)
    tl.store(out + HALF, tl.load(place + HALF, mask=mask, other=0.0), mask=mask)

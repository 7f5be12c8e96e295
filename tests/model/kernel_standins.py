"""Stand-ins for what runs on CUDA alone: signatures and meaning of FlashAttention's and torch's functions."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from model_reference import packed_ids
from torch import Tensor

from clm_detour.model import compiling, kernels
from clm_detour.model.attention import flash, flex, portable, probe, varlen

FA2, FA3, FA4, VARLEN = "flash_attn", "flash_attn_interface", "flash_attn.cute", "torch.nn.attention.varlen"


def kernel(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, left: int, right: int
) -> Tensor:
    """What every one of them computes: key - query is within -left and right, inclusive; -1 is no limit."""
    check_inputs(q, k, v)
    for cu in (cu_q, cu_k):
        assert cu.dtype == torch.int32, "cu_seqlens must have dtype int32"
        assert cu.is_contiguous(), "cu_seqlens must be contiguous"
        assert cu.device == q.device, "cu_seqlens must be on the device of the queries"
        assert len(cu) > 1, "there must be a document"
    assert torch.equal(cu_q, cu_k)
    lengths = cu_q.diff().tolist()
    assert cu_q[0] == 0
    assert cu_q[-1] == len(q) == len(k), "cu_seqlens must end at the number of tokens"
    assert type(max_q) is type(max_k) is int
    assert max_q == max_k == max(lengths)
    position = torch.arange(len(q))
    distance = position - position[:, None]
    index = packed_ids(lengths)[0]
    seen = index == index[:, None]
    seen &= (left < 0) | (distance >= -left)
    seen &= (right < 0) | (distance <= right)
    return Kernel.apply(q, k, v, seen)


def check_inputs(*tensors: Tensor) -> None:
    """Check what the sources check (FA2's flash_api.cpp, FA3's flash_api.cpp, FA4's interface.py).

    The last dimension is dense; rows start at multiples of 16 bytes, which is what copies of 128 bits and TMA
    descriptors need and FA2 does not check.
    """
    first = tensors[0]
    assert first.dtype in (torch.bfloat16, torch.float16), "only fp16 and bf16 are supported"
    for x in tensors:
        assert x.dtype == first.dtype, "queries, keys and values must have the same dtype"
        assert x.device == first.device, "queries, keys and values must be on the same device"
        assert x.shape == first.shape, "queries, keys and values must have the same shape"
        assert x.ndim == 3
        assert x.shape[-1] % 8 == 0, "the size of a head must be a multiple of 8"
        assert x.shape[-1] <= 256, "the size of a head must be at most 256"
        assert x.stride(-1) == 1, "the last dimension must be contiguous"
        assert x.data_ptr() % 16 == 0, "data must start at a multiple of 16 bytes"
        assert all(stride * x.element_size() % 16 == 0 for stride in x.stride()[:-1]), "rows must be aligned"


class Kernel(torch.autograd.Function):
    """Attention in fp32, rounded to the type of the inputs, with the backward pass of the kernels.

    As theirs, it keeps inputs, output and the log-sum-exp, and never the probabilities.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        with torch.autocast(q.device.type, enabled=False):
            scores = scores_of(q, k, seen)
            lse = scores.logsumexp(-1)
            out = torch.einsum("hqk,khd->qhd", (scores - lse[..., None]).exp(), v.float()).to(q.dtype)
        ctx.save_for_backward(q, k, v, seen, lse, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, seen, lse, out = ctx.saved_tensors
        grad = grad if grad.stride(-1) == 1 else grad.contiguous()  # as their wrappers do
        check_inputs(grad, q)
        p = (scores_of(q, k, seen) - lse[..., None]).exp()
        do = grad.float()
        rest = (do * out.float()).sum(-1).T[..., None]
        ds = p * (torch.einsum("qhd,khd->hqk", do, v.float()) - rest) / q.shape[-1] ** 0.5
        return (
            torch.einsum("hqk,khd->qhd", ds, k.float()).to(q.dtype),
            torch.einsum("hqk,qhd->khd", ds, q.float()).to(q.dtype),
            torch.einsum("hqk,qhd->khd", p, do).to(q.dtype),
            None,
        )


def scores_of(q: Tensor, k: Tensor, seen: Tensor) -> Tensor:
    """(H, queries, keys) fp32, -inf where a query does not see a key."""
    scores = torch.einsum("qhd,khd->hqk", q.float(), k.float()) / q.shape[-1] ** 0.5
    return scores.masked_fill(~seen, -torch.inf)


class Calls:
    """Functions with the signatures of FlashAttention's releases, and what the last call asked.

    Recorded from flash-attn 2.8.3 (`two`), flash-attn-3 3.0.0 (`three`) and flash-attn-4 4.0.0b36 (`four`).
    """

    deterministic: bool | None = None

    def two(
        self, q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
        softmax_scale=None,
        causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False,
        return_attn_probs=False, block_table=None,
    ):  # fmt: skip
        self.deterministic = deterministic
        left, right = window_size[0], 0 if causal else window_size[1]
        return kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, left, right)

    def three(
        self, q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, seqused_q=None, seqused_k=None,
        softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None, v_descale=None,
        window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None,
        deterministic=False,
        sm_margin=0, return_attn_probs=False,
    ):  # fmt: skip
        self.deterministic = deterministic
        left, right = window_size[0], 0 if causal else window_size[1]
        return kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, left, right)

    @functools.wraps(three)
    def early_three(self, *args, **kwargs):
        return self.three(*args, **kwargs), "log-sum-exp"

    def four(
        self, q, k, v, qv=None, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, max_seqlen_k=None,
        min_seqlen_k=None, seqused_q=None, seqused_k=None, gather_kv_indices=None, page_table=None,
        softmax_scale=None, causal=False, window_size=(None, None), learnable_sink=None, softcap=0.0,
        num_splits=1, pack_gqa=None, deterministic=False, score_mod=None, score_mod_bwd=None, mask_mod=None,
        block_sparse_tensors=None, aux_tensors=None, aux_scalars=None, return_lse=False,
        scheduler_metadata=None, seqlen_k_per_split=None, disable_scheduler_metadata=False,
        gather_bwd_recompute_p=False, gather_bwd_token_chunk=None,
    ):  # fmt: skip
        self.deterministic = deterministic
        assert qv is None
        assert all(side is None or side >= 0 for side in window_size), "-1 is a number here"
        left, right = (-1 if side is None else side for side in window_size)
        right = 0 if causal else right
        return kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, left, right), None

    def early_four(
        self, q, k, v, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, max_seqlen_k=None,
        seqused_q=None, seqused_k=None, page_table=None, softmax_scale=None, causal=False,
        window_size=(None, None), learnable_sink=None, softcap=0.0, num_splits=1, pack_gqa=None,
        deterministic=False,
    ):  # fmt: skip
        raise AssertionError("its backward takes no documents")


# recorded from torch 2.11
def varlen_attn(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
):
    assert type(window_size) is tuple, "torch compares it with a tuple"
    return kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *window_size)


def varlen_attn_of_torch_2_10(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None, scale=None
):
    raise AssertionError("it has no window")


class Machine:
    """A pretended GPU with nothing installed; tensors stay on the CPU."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.patch = patch
        for module in (FA2, FA3, FA4, VARLEN):
            patch.setitem(sys.modules, module, None)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(kernels, "DEVICE", "cpu")
        patch.setattr(flex, "_attend_apart", portable.attend)  # the probe of the compiled kernel
        self.has_gpu(8)
        self.has_triton(True)
        self.has_headers(True)

    def has_gpu(self, major: int, minor: int = 0) -> None:
        forget()
        self.patch.setattr(torch.cuda, "get_device_capability", lambda device=None: (major, minor))

    def has_triton(self, present: bool) -> None:
        forget()
        self.patch.setattr(compiling, "find_spec", lambda name: "a spec" if present else None)

    def has_headers(self, present: bool) -> None:
        forget()
        self.patch.setattr(compiling, "_has_headers", lambda: present)

    def install(self, module: str, function: Callable[..., Any] | None) -> None:
        made = ModuleType(module)
        name = "varlen_attn" if module == VARLEN else "flash_attn_varlen_func"
        if function is not None:
            setattr(made, name, function)
        self.patch.setitem(sys.modules, module, made)
        forget()


def forget() -> None:
    compiling.cannot_compile.cache_clear()
    flash.find.cache_clear()
    probe._tried.cache_clear()
    varlen.find.cache_clear()

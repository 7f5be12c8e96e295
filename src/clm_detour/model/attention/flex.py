"""FlexAttention, torch's block-sparse kernel, compiled for CUDA: any precision, no further package.

The keys that a token sees are one interval of tokens, whatever the documents, the mode and the window. So one
mask function over two tensors serves every layer and batch and is compiled once. The blocks of keys that a
block of queries sees follow from its first and its last query, in N x N steps; `create_block_mask` takes T x
T. Tokens are padded to whole blocks, at least two, as one more document, so that the kernel needs no bounds.

Nothing is summed in random order, so it is deterministic. On a CPU torch runs it uncompiled over all T x T
pairs, which is exact and slow.

Shapes: T tokens, H heads, D size of a head, N blocks of BLOCK tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from clm_detour.model.attention import probe
from clm_detour.model.compiling import allow_many_versions, cannot_compile
from clm_detour.model.documents import Documents
from clm_detour.model.kernels import DEVICE, OTHER, check_heads, half_on_cuda, no_gpu
from clm_detour.utils.errors import UserError

NAME = "flex"
suits = half_on_cuda
BLOCK = 128
HEADS = range(16, 257)  # of the compiled kernel
OPTIONS = {
    "FORCE_USE_FLEX_ATTENTION": True
}  # one kernel for all T; below 128 torch would use its decoding kernel


def unavailable() -> str | None:
    """Return why it cannot run here, or None if it can."""
    if not torch.cuda.is_available():
        return None
    if reason := no_gpu() or cannot_compile(DEVICE):
        return reason
    problem = probe.problem(_attend_apart)
    return None if problem is None else f"torch's flex_attention does not work here ({problem})"


def attend(
    q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, documents: Documents, causal: bool, window: int | None
) -> Tensor:
    """Compute `clm_detour.model.attention.attention`.

    Raises:
        UserError: On CUDA with heads of an unsupported size; in training on a CPU with a torch that cannot.
    """
    kernel = compiled(torch.is_grad_enabled()) if q_THD.is_cuda else _uncompiled
    return _attend(kernel, q_THD, k_THD, v_THD, documents, causal, window)


def _attend_apart(
    q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, documents: Documents, causal: bool, window: int | None
) -> Tensor:
    """Compute `attend` by a kernel of its own.

    A probe must not count as the first T of a training: training would then get the kernel for any T.
    """
    return _attend(compiled_apart(), q_THD, k_THD, v_THD, documents, causal, window)


def _attend(
    kernel: Callable[..., Any],
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    documents: Documents,
    causal: bool,
    window: int | None,
) -> Tensor:
    whole = documents.once((NAME, "whole blocks"), lambda: in_whole_blocks(documents))
    mask = whole.once((NAME, causal, window), lambda: block_mask(whole, causal, window))
    rest = whole.tokens - documents.tokens
    padded = (F.pad(x, (0, 0, 0, 0, 0, rest)) if rest else x for x in (q_THD, k_THD, v_THD))
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in padded)
    if q.is_cuda:
        check_heads(NAME, q.shape[-1], HEADS)
    out = kernel(q, k, v, mask)
    return out.squeeze(0).transpose(0, 1)[: documents.tokens]


def in_whole_blocks(documents: Documents) -> Documents:
    """Return the documents with one more that fills the last block."""
    blocks = max(2, -(-documents.tokens // BLOCK))  # torch would compile another kernel for one block
    rest = blocks * BLOCK - documents.tokens
    return Documents([*documents.lengths, rest], documents.device) if rest else documents


@cache
def compiled(gradients: bool, backend: str = "inductor") -> Callable[..., Any]:
    """Return the compiled kernel.

    At the second T torch compiles one for any T, separately in training and without gradients. So a forward
    with another T between training steps does not change the kernel that training compiled for its one T.
    """
    allow_many_versions()
    return torch.compile(_training if gradients else _inference, fullgraph=True, backend=backend)


@cache
def compiled_apart() -> Callable[..., Any]:
    """Return the compiled kernel, for training, which shares nothing with that of `compiled`."""
    return torch.compile(_apart, fullgraph=True)


def _apart(q_1HTD: Tensor, k_1HTD: Tensor, v_1HTD: Tensor, mask: BlockMask) -> Any:
    return flex_attention(q_1HTD, k_1HTD, v_1HTD, block_mask=mask, kernel_options=OPTIONS)


def _training(q_1HTD: Tensor, k_1HTD: Tensor, v_1HTD: Tensor, mask: BlockMask) -> Any:
    return flex_attention(q_1HTD, k_1HTD, v_1HTD, block_mask=mask, kernel_options=OPTIONS)


def _inference(q_1HTD: Tensor, k_1HTD: Tensor, v_1HTD: Tensor, mask: BlockMask) -> Any:
    return flex_attention(q_1HTD, k_1HTD, v_1HTD, block_mask=mask, kernel_options=OPTIONS)


def _uncompiled(q_1HTD: Tensor, k_1HTD: Tensor, v_1HTD: Tensor, mask: BlockMask) -> Any:
    try:
        return flex_attention(q_1HTD, k_1HTD, v_1HTD, block_mask=mask)
    except NotImplementedError as error:  # torch 2.7 has the backward, newer ones do not
        raise UserError(
            f"The attention back end {NAME!r} cannot train on a CPU with torch {torch.__version__}; "
            f"choose 'portable' {OTHER}."
        ) from error


def block_mask(documents: Documents, causal: bool, window: int | None) -> BlockMask:
    """Return which tokens, and which blocks, see each other.

    From one query to the next, neither end of the seen interval moves back. So the first and last query of a
    block decide.
    """
    first_T, last_T = seen(documents, causal, window)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (first_T[query] <= key) & (key <= last_T[query])

    start_N = torch.arange(0, documents.tokens, BLOCK, device=first_T.device)
    end_N = start_N + BLOCK - 1
    final_N = end_N.clamp(max=documents.tokens - 1)
    some_NN = (first_T[start_N, None] <= final_N) & (last_T[final_N, None] >= start_N)
    all_NN = (first_T[final_N, None] <= start_N) & (last_T[start_N, None] >= end_N)
    all_NN &= (end_N == final_N)[:, None]
    return BlockMask.from_kv_blocks(
        *_in_order(some_NN & ~all_NN),
        *_in_order(all_NN),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(documents.tokens, documents.tokens),
    )


def seen(documents: Documents, causal: bool, window: int | None) -> tuple[Tensor, Tensor]:
    """Return the first and the last token that each token sees, (T,) int32 each."""
    token_T = torch.arange(documents.tokens, dtype=torch.int32, device=documents.cu_seqlens.device)
    first_T = documents.cu_seqlens[documents.index]
    last_T = documents.cu_seqlens[documents.index + 1] - 1
    if window is not None:
        first_T, last_T = torch.maximum(first_T, token_T - window), torch.minimum(last_T, token_T + window)
    return first_T, token_T if causal else last_T


def _in_order(blocks_NN: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many blocks each block of queries sees, (1, 1, N), and those first, (1, 1, N, N)."""
    number_N = blocks_NN.sum(-1, dtype=torch.int32)
    order_NN = blocks_NN.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    return number_N[None, None], order_NN[None, None]

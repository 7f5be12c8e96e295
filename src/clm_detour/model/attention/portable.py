"""The back end that runs everywhere: exact, fp32 or half precision, on torch's `scaled_dot_product_attention`.

Global layers: documents of similar length form a padded batch with a mask over keys; a document alone in its batch
needs no mask. Local layers: the tokens are cut into blocks of queries, each with the keys of its neighbourhood, so
the cost is O(tokens x window). The masks are made once per forward.

Shapes: T tokens, H heads, D size of a head, N blocks, Q queries of a block, K its keys, G documents of a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clm_detour.model.documents import Documents

NAME = "portable"


def unavailable() -> str | None:
    """It always runs."""
    return None


def attend(
    q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, documents: Documents, causal: bool, window: int | None
) -> Tensor:
    """See `clm_detour.model.attention.attention`."""
    if window is None or documents.longest <= window + 1:
        return _global(q_THD, k_THD, v_THD, documents, causal)
    return _local(q_THD, k_THD, v_THD, documents, causal, window)


def _global(q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, documents: Documents, causal: bool) -> Tensor:
    parts = [x.split(documents.lengths) for x in (q_THD, k_THD, v_THD)]
    out = [
        F.scaled_dot_product_attention(*(x.transpose(0, 1).unsqueeze(0) for x in part), is_causal=causal)
        for part in zip(*parts, strict=True)
    ]
    return torch.cat([x.squeeze(0).transpose(0, 1) for x in out])


@dataclass(frozen=True)
class Blocks:
    """How T tokens are cut into N blocks of Q queries.

    Args:
        before, after: keys that a block sees to its left and right.
        mask_N1QK: 0 where a query sees a key, -inf elsewhere.
    """

    number: int
    queries: int
    before: int
    after: int
    mask_N1QK: Tensor


def _blocks(documents: Documents, causal: bool, window: int, dtype: torch.dtype) -> Blocks:
    queries = max(window, 16)
    before, after = window, 0 if causal else window
    number = -(-documents.tokens // queries)
    query = torch.arange(number * queries, device=documents.index.device)
    index = F.pad(documents.index, (before, len(query) - documents.tokens + after), value=-1)
    distance = torch.arange(before + queries + after, device=query.device) - before
    distance = distance - torch.arange(queries, device=query.device)[:, None]
    near = (distance >= -before) & (distance <= after)
    same = index.unfold(0, before + queries + after, queries)[:, None, :] == (
        index[before : before + len(query)].view(number, queries, 1)
    )
    mask = torch.zeros(number, 1, queries, before + queries + after, dtype=dtype, device=query.device)
    mask.masked_fill_(~(near & same).unsqueeze(1), -torch.inf)
    return Blocks(number, queries, before, after, mask)


def _local(
    q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, documents: Documents, causal: bool, window: int
) -> Tensor:
    key = (NAME, "blocks", causal, window, q_THD.dtype)
    blocks = documents.once(key, lambda: _blocks(documents, causal, window, q_THD.dtype))
    rest = blocks.number * blocks.queries - documents.tokens
    q = F.pad(q_THD, (0, 0, 0, 0, 0, rest)).unflatten(0, (blocks.number, blocks.queries)).transpose(1, 2)
    keys = blocks.before + blocks.queries + blocks.after
    k, v = (
        F.pad(x, (0, 0, 0, 0, blocks.before, rest + blocks.after))
        .unfold(0, keys, blocks.queries)
        .transpose(2, 3)
        for x in (k_THD, v_THD)
    )
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=blocks.mask_N1QK)
    return out.transpose(1, 2).flatten(0, 1)[: documents.tokens]

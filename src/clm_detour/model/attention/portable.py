"""The back end that runs everywhere, on torch's `scaled_dot_product_attention`, in fp32 or half precision.

Global layers: a long document is computed alone, in place; short ones form padded batches by length, so that
thousands of them do not take thousands of calls. Local layers: the tokens are cut into blocks of queries,
each with the keys of its neighborhood, so the cost is O(tokens x window). Masks are made once per forward.

Shapes: T tokens, H heads, D size of a head, N blocks, Q queries of a block, K its keys.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clm_detour.model.documents import Documents, on_device

NAME = "portable"
HEADS = range(1, 1 << 30)
SHORT = 48  # tokens up to which documents are padded and batched; for longer ones separate calls cost less
STEP = 8  # short documents are padded to a multiple of this
SMALLEST_BLOCK = 16


def suits(device: str, dtype: torch.dtype) -> bool:
    """Return True: it is made for all tensors."""
    return True


def unavailable() -> str | None:
    """Return None: it always runs."""
    return None


def attend(
    q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, documents: Documents, causal: bool, window: int | None
) -> Tensor:
    """Compute `clm_detour.model.attention.attention`."""
    if window is None or documents.longest <= window + 1:
        return _global(q_THD, k_THD, v_THD, documents, causal)
    return _local(q_THD, k_THD, v_THD, documents, causal, window)


@dataclass(frozen=True)
class Groups:
    """Groups of documents that are computed together.

    Args:
        shapes: (documents, padded length) of each group. The groups lie one after another.
        place: The place of each token in the groups, (T,). None leaves tokens in place.
        key_masks: For each group (documents, 1, 1, length), 0 at tokens and -inf at padding. None is no
            padding.
    """

    shapes: list[tuple[int, int]]
    place: Tensor | None
    key_masks: list[Tensor | None]

    @property
    def sizes(self) -> list[int]:
        """Number of tokens of each group, padding included."""
        return [documents * length for documents, length in self.shapes]


def _groups(documents: Documents, dtype: torch.dtype) -> Groups:
    if min(documents.lengths) > SHORT:
        return Groups([(1, length) for length in documents.lengths], None, [None] * len(documents.lengths))
    # padded length (for a long document minus its number) -> numbers of the documents
    members: dict[int, list[int]] = defaultdict(list)
    for number, length in enumerate(documents.lengths):
        members[-number if length > SHORT else -(-length // STEP) * STEP].append(number)
    first = [0] * len(documents.lengths)  # place of each document's first token
    shapes, masks, start = [], [], 0
    for padded, numbers in members.items():
        length = padded if padded > 0 else documents.lengths[numbers[0]]
        for place, number in enumerate(numbers):
            first[number] = start + length * place
        shapes.append((len(numbers), length))
        own = [documents.lengths[number] for number in numbers]
        masks.append(_key_mask(own, length, documents.device, dtype) if padded > 0 else None)
        start += len(numbers) * length
    return Groups(shapes, on_device(first, documents.device)[documents.index] + documents.positions, masks)


def _key_mask(lengths: list[int], padded: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    padding = torch.arange(padded, device=device) >= on_device(lengths, device)[:, None]
    mask = torch.zeros(len(lengths), 1, 1, padded, dtype=dtype, device=device)
    return mask.masked_fill_(padding[:, None, None], -torch.inf)


def _global(q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, documents: Documents, causal: bool) -> Tensor:
    groups = documents.once((NAME, "groups", q_THD.dtype), lambda: _groups(documents, q_THD.dtype))
    parts = zip(*(_spread(x, groups).split(groups.sizes) for x in (q_THD, k_THD, v_THD)), strict=True)
    outputs = []
    for part, shape, mask in zip(parts, groups.shapes, groups.key_masks, strict=True):
        q, k, v = (x.unflatten(0, shape).transpose(1, 2) for x in part)
        # causal needs no mask: padding lies to the right of every token
        out = F.scaled_dot_product_attention(q, k, v, None if causal else mask, is_causal=causal)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    together = torch.cat(outputs)
    return together if groups.place is None else together.index_select(0, groups.place)


def _spread(x_THD: Tensor, groups: Groups) -> Tensor:
    if groups.place is None:
        return x_THD
    return x_THD.new_zeros(sum(groups.sizes), *x_THD.shape[1:]).index_copy(0, groups.place, x_THD)


@dataclass(frozen=True)
class Blocks:
    """The blocks of queries into which T tokens are cut.

    Args:
        number, queries: N and Q. N * Q is at least T.
        before, after: Number of keys that a block sees to its left and right, at most Q.
        mask: (N, 1, Q, K), 0 where a query sees a key, -inf elsewhere. A query beyond the T tokens sees
            itself.
    """

    number: int
    queries: int
    before: int
    after: int
    mask: Tensor

    @property
    def keys(self) -> int:
        """K."""
        return self.before + self.queries + self.after


def _blocks(documents: Documents, causal: bool, window: int, dtype: torch.dtype) -> Blocks:
    queries = max(window, SMALLEST_BLOCK)
    before, after = window, 0 if causal else window
    number = -(-documents.tokens // queries)
    device = documents.device
    rest = number * queries - documents.tokens
    index = F.pad(documents.index, (before, rest + after), value=-1)
    key = torch.arange(before + queries + after, device=device) - before
    distance = key - torch.arange(queries, device=device)[:, None]
    near = (distance >= -before) & (distance <= after)
    own = index[before : before + number * queries].view(number, queries, 1)
    same = index.unfold(0, len(key), queries).unsqueeze(1) == own
    mask = torch.zeros(number, queries, len(key), dtype=dtype, device=device)
    return Blocks(number, queries, before, after, mask.masked_fill_(~(near & same), -torch.inf).unsqueeze(1))


def _local(
    q_THD: Tensor, k_THD: Tensor, v_THD: Tensor, documents: Documents, causal: bool, window: int
) -> Tensor:
    key = (NAME, "blocks", causal, window, q_THD.dtype)
    blocks = documents.once(key, lambda: _blocks(documents, causal, window, q_THD.dtype))
    rest = blocks.number * blocks.queries - documents.tokens
    q_THD = F.pad(q_THD, (0, 0, 0, 0, 0, rest)) if rest else q_THD
    q = q_THD.unflatten(0, (blocks.number, blocks.queries)).transpose(1, 2)
    k, v = (_Neighbourhoods.apply(x, blocks) for x in (k_THD, v_THD))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=blocks.mask).transpose(1, 2).flatten(0, 1)
    return out[: documents.tokens] if rest else out


class _Neighbourhoods(torch.autograd.Function):
    """The keys of each block, as a view with overlaps of a padded copy: (T, H, D) -> (N, H, K, D).

    The backward adds up the three blocks that a key belongs to; that of `unfold` takes several times as long.
    """

    @staticmethod
    def forward(ctx: Any, x_THD: Tensor, blocks: Blocks) -> Tensor:
        ctx.blocks, ctx.tokens = blocks, len(x_THD)
        rest = blocks.number * blocks.queries - len(x_THD)
        padded = F.pad(x_THD, (0, 0, 0, 0, blocks.before, rest + blocks.after))
        return padded.unfold(0, blocks.keys, blocks.queries).transpose(2, 3)

    @staticmethod
    def backward(ctx: Any, grad_NHKD: Tensor) -> tuple[Tensor, None]:
        blocks, grad_NKHD = ctx.blocks, grad_NHKD.transpose(1, 2)
        before, queries, after = grad_NKHD.split([blocks.before, blocks.queries, blocks.after], dim=1)
        grad = queries.clone(memory_format=torch.contiguous_format)
        grad[:-1, blocks.queries - blocks.before :] += before[1:]
        grad[1:, : blocks.after] += after[:-1]
        return grad.flatten(0, 1)[: ctx.tokens], None

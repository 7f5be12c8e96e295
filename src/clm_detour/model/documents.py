"""Documents laid end to end, with the boundaries that attention, positions and next-token labels respect.

The network never sees rows or padding. The T real tokens of a batch are taken out of their (B, L) rows and
laid end to end. A `Documents` says where each document ends, and keeps what is derived from that (positions,
masks), so that it is computed once per forward and shared by all layers.

Shapes: B rows, L positions of a row, T tokens, N documents.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any, TypeVar

import torch
from torch import Tensor

from clm_detour.model.input_checks import check_rows, check_shape
from clm_detour.model.padding import real_tokens
from clm_detour.utils.errors import UserError

IGNORED = -100
FEWEST = 64  # documents of a compiled graph
Made = TypeVar("Made")


class Documents:
    """The boundaries of N documents laid end to end.

    Args:
        lengths: Number of tokens of each document, on the host, so that nothing waits for the device.
        device: Device on which tensors are created.

    Raises:
        UserError: If a length is not positive.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu"):
        if any(length < 1 for length in lengths):
            raise UserError("A document has no tokens; give lengths of at least 1.")
        self.lengths = list(lengths)
        self.device = torch.device(device)
        self.tokens = sum(lengths)
        self.longest = max(lengths, default=0)
        self._made: dict[Hashable, Any] = {}

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """Cumulative lengths, (N + 1,) int32: document n is tokens cu_seqlens[n] to cu_seqlens[n + 1]."""
        return on_device(itertools.accumulate(self.lengths, initial=0), self.device, torch.int32)

    @cached_property
    def padded(self) -> tuple[Tensor, int]:
        """Boundaries, (N' + 1,) int32, and a bound of the lengths, for a compiled graph of fixed shapes.

        Empty documents at the end fill their number up to a power of two, of at least FEWEST, and the bound
        is a power of two. So both seldom change from batch to batch, and a change compiles a graph anew.
        """
        more = max(power_of_two(len(self.lengths)), FEWEST) - len(self.lengths)
        ends = itertools.accumulate([*self.lengths, *[0] * more], initial=0)
        return on_device(ends, self.device, torch.int32), power_of_two(self.longest)

    @cached_property
    def index(self) -> Tensor:
        """The number of each token's document, (T,) int64."""
        numbers = torch.arange(len(self.lengths), device=self.device)
        return numbers.repeat_interleave(self.cu_seqlens.diff(), output_size=self.tokens)

    @cached_property
    def positions(self) -> Tensor:
        """The position of each token in its document, from 0, (T,) int64."""
        return torch.arange(self.tokens, device=self.device) - self.cu_seqlens[:-1][self.index]

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return `make()` at the first call with this key, and the same object afterwards."""
        if key not in self._made:
            with torch.no_grad():
                self._made[key] = make()
        return self._made[key]


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()


def on_device(numbers: Iterable[int], device: torch.device | str, dtype: torch.dtype = torch.int64) -> Tensor:
    """Return a tensor of numbers that the host knows, without waiting for the device."""
    known = torch.tensor(list(numbers), dtype=dtype)
    if torch.device(device).type == "cuda":
        known = known.pin_memory()  # copying from pageable memory would wait
    return known.to(device, non_blocking=True)


@dataclass(frozen=True)
class Unpadded:
    """The tokens of a (B, L) batch laid end to end, and the way back to rows.

    Args:
        documents: The documents.
        shape: (B, L).
        kept: Places of the tokens in the flattened rows, (T,) int64. None if all are kept.
    """

    documents: Documents
    shape: tuple[int, int]
    kept: Tensor | None

    def take(self, rows: Tensor) -> Tensor:
        """Return the tokens of rows: (B, L, ...) -> (T, ...)."""
        flat = rows.flatten(0, 1)
        return flat if self.kept is None else flat[self.kept]

    def put_back(self, tokens: Tensor) -> Tensor:
        """Return tokens in their rows, with zeros at padding: (T, ...) -> (B, L, ...)."""
        if self.kept is None:
            return tokens.unflatten(0, self.shape)
        flat = tokens.new_zeros(self.shape[0] * self.shape[1], *tokens.shape[1:])
        return flat.index_copy(0, self.kept, tokens).unflatten(0, self.shape)


def unpad(
    shape: tuple[int, int],
    device: torch.device,
    attention_mask: Tensor | None = None,
    document_ids: Tensor | None = None,
    document_lengths: Sequence[Sequence[int]] | None = None,
) -> Unpadded:
    """Find the documents of a batch. With neither ids nor lengths each row is one document.

    Args:
        shape: (B, L).
        device: Device of the batch.
        attention_mask: 0 at padding, which is taken out, so that the rest of a row closes up. For other forms
            see `clm_detour.model.padding.real_tokens`.
        document_ids: (B, L) integers. A document is a maximal run of equal ids within a row.
        document_lengths: Lengths of the documents of each row, adding up to L. They replace the other two,
            which make the host wait for the device.

    Raises:
        UserError: If shapes or lengths do not fit (B, L), the mask cannot be read, or lengths are given
            together with ids or a mask.
    """
    check_shape("document_ids", document_ids, shape)
    if document_lengths is not None:
        _check_lengths(document_lengths, shape, alone=attention_mask is None and document_ids is None)
        return Unpadded(Documents(list(itertools.chain(*document_lengths)), device), shape, None)
    if attention_mask is None and document_ids is None:
        rows, length = shape
        return Unpadded(Documents([length] * rows if length else [], device), shape, None)
    run = _runs(shape, device, document_ids)
    kept = None
    if attention_mask is not None:
        kept = real_tokens(attention_mask, shape).flatten().nonzero().squeeze(1)
        run = run[kept]
    return Unpadded(_documents_of_runs(run), shape, kept)


def _check_lengths(lengths: Sequence[Sequence[int]], shape: tuple[int, int], alone: bool) -> None:
    if not alone:
        raise UserError("document_lengths say all about a batch; leave document_ids and attention_mask out.")
    try:
        fit = len(lengths) == shape[0] and all(sum(row) == shape[1] for row in lengths)
        fit &= all(isinstance(length, Integral) for row in lengths for length in row)
    except TypeError:  # not a list of lists
        fit = False
    if not fit:
        raise UserError(
            f"document_lengths must be {shape[0]} lists that each add up to {shape[1]}, the shape of "
            "input_ids."
        )


def _runs(shape: tuple[int, int], device: torch.device, document_ids: Tensor | None) -> Tensor:
    """Return a number for each position, (B * L,) int64, the same for neighbors of one document."""
    starts = torch.zeros(shape, dtype=torch.bool, device=device)
    starts[:, :1] = True
    if document_ids is not None:
        starts[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return starts.flatten().cumsum(0)


def _documents_of_runs(run: Tensor) -> Documents:
    starts = torch.ones_like(run, dtype=torch.bool)
    starts[1:] = run[1:] != run[:-1]
    ends = torch.cat([starts.nonzero().squeeze(1), run.new_tensor([len(run)])])
    return Documents(ends.diff().tolist(), run.device)


def next_token_labels(
    input_ids: Tensor, document_ids: Tensor | None = None, attention_mask: Tensor | None = None
) -> Tensor:
    """Return the labels of causal language modeling: the next token of the same document at each position.

    Args:
        input_ids: (B, L) int64.
        document_ids: (B, L), as the model's forward takes them. Padded rows need these or a mask.
        attention_mask: (B, L), as the model's forward takes it.

    Returns:
        Labels (B, L) int64, -100 at the last token of each document and at padding.

    Raises:
        UserError: If shapes differ.
    """
    shape = check_rows(input_ids)
    input_ids = input_ids.long()
    unpadded = unpad(shape, input_ids.device, attention_mask, document_ids)
    ids = unpadded.take(input_ids)
    labels = of_next_token(ids, unpadded.documents)
    rows = torch.full_like(input_ids, IGNORED).flatten()
    rows[slice(None) if unpadded.kept is None else unpadded.kept] = labels
    return rows.unflatten(0, shape)


def of_next_token(values_T: Tensor, documents: Documents) -> Tensor:
    """Return the value of the next token of the same document, -100 for its last token: (T,) -> (T,)."""
    shifted = torch.full_like(values_T, IGNORED)
    shifted[:-1] = values_T[1:]
    shifted[documents.cu_seqlens[1:].long() - 1] = IGNORED
    return shifted

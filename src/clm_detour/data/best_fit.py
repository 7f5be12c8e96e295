"""Packing documents of any lengths into rows of `row_length` tokens that are at least 99.9 % full.

The number of rows is fixed in advance: the smallest that holds all tokens, plus at most 0.1 %. A document
longer than a row gives full rows and a remainder. Remainders and shorter documents are then placed, uncut, in
the fullest row that still has room for them (best fit): most of them in random order, so that a row mixes
long and short ones, and at the end the shortest, longest first, to close the gaps. Documents that fit nowhere
are cut along the gaps that are left, largest first. Without this last step, papers of 5,500 tokens would fill
rows of 8,192 to 93 %; with it, 1 in 20 of them is cut although it is no longer than a row. Of short texts
almost none is cut.

The seed shuffles which document goes into which row, the order of the rows, and the order within a row. The
cost is about three microseconds for each document: rows are indexed by their free room, and the smallest
sufficient room is found by one operation on the bits of an integer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

METHOD = 1  # increase it when the order of rows changes
PER_MILLE_FULL = 999
CLOSING_SHARE = 0.2  # share of the tokens, in the shortest documents, kept for the end: fewest papers are cut


@dataclass(frozen=True)
class PackedRows:
    """Pieces of documents, row by row: row i has the pieces `row_starts[i]:row_starts[i + 1]`.

    Args:
        piece_document: Index of the document, (pieces,) uint32.
        piece_start: First token inside the document, (pieces,) uint32.
        piece_length: Number of tokens, (pieces,) uint32.
        row_starts: First piece of each row, then the number of pieces, (rows + 1,) uint64.
    """

    piece_document: np.ndarray
    piece_start: np.ndarray
    piece_length: np.ndarray
    row_starts: np.ndarray

    def __len__(self) -> int:
        return len(self.row_starts) - 1


def pack(lengths: np.ndarray, row_length: int, seed: int) -> PackedRows:
    """Pack documents of `lengths` tokens, (documents,), all positive. The same arguments give the same rows.

    Every token is in exactly one row. The rows are at least 99.9 % full, or as few as possible.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    assert row_length > 0, row_length
    assert (lengths > 0).all(), "an empty document"
    total = int(lengths.sum())
    rows = max(-(-total // row_length), total * 1000 // (PER_MILLE_FULL * row_length))
    bits = np.random.PCG64(seed)
    full = lengths // row_length
    open_rows = rows - int(full.sum())

    pieces = [_full_rows(full, row_length, first_row=open_rows)]
    rests = _placing_order(lengths % row_length, bits)
    rest_length = (lengths % row_length)[rests]
    row, room = _best_fit(rest_length.tolist(), open_rows, row_length)
    placed, aside = row >= 0, row < 0
    starts = full[rests] * row_length
    pieces.append(np.stack([rests[placed], starts[placed], rest_length[placed], row[placed]]))
    item, offset, length, gap = _cut_to_fit(rest_length[aside], room)
    pieces.append(np.stack([rests[aside][item], starts[aside][item] + offset, length, gap]))
    return _shuffled(np.concatenate(pieces, axis=1), bits)


def pack_pieces(lengths: np.ndarray, row_length: int, seed: int, longest: int | None) -> PackedRows:
    """Pack documents as `pack` does, after cutting those of more than `longest` tokens at its multiples.

    Args:
        longest: Number of tokens, less than a row; None if documents are cut only at the ends of rows.
    """
    if longest is None:
        return pack(lengths, row_length, seed)
    lengths = np.asarray(lengths, dtype=np.int64)
    count = -(-lengths // longest)
    document = np.repeat(np.arange(len(lengths)), count)
    start = (np.arange(len(document)) - np.repeat(np.cumsum(count) - count, count)) * longest
    rows = pack(np.minimum(lengths[document] - start, longest), row_length, seed)
    piece = rows.piece_document
    return replace(
        rows,
        piece_document=document[piece].astype(np.uint32),
        piece_start=(start[piece] + rows.piece_start).astype(np.uint32),
    )


def _full_rows(full: np.ndarray, row_length: int, first_row: int) -> np.ndarray:
    """Return the pieces (document, start, length, row) x pieces of the full rows of all documents."""
    document = np.repeat(np.arange(len(full)), full)
    count = np.arange(len(document))
    start = (count - np.repeat(np.cumsum(full) - full, full)) * row_length
    return np.stack([document, start, np.full_like(start, row_length), first_row + count])


def _placing_order(lengths: np.ndarray, bits: np.random.PCG64) -> np.ndarray:
    """Return the indices of positive `lengths`: shuffled, but the shortest last, longest first."""
    order = _shuffle(len(lengths), bits)
    order = order[lengths[order] > 0]
    order = order[np.argsort(-lengths[order], kind="stable")]
    first = np.searchsorted(np.cumsum(lengths[order]), (1 - CLOSING_SHARE) * lengths.sum())
    return np.concatenate([order[:first][_shuffle(int(first), bits)], order[first:]])


def _best_fit(lengths: list[int], rows: int, row_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Put each item into the row with the smallest sufficient room.

    Returns:
        The row of each item, -1 if no row has room for it, and the room left in each row.
    """
    by_room: list[list[int]] = [[] for _ in range(row_length + 1)]
    by_room[row_length] = list(range(rows))[::-1]
    rooms = 1 << row_length if rows else 0  # bit r is set if some row has room for exactly r
    row_of = []
    for length in lengths:
        sufficient = rooms >> length
        if not sufficient:
            row_of.append(-1)
            continue
        room = length + (sufficient & -sufficient).bit_length() - 1
        row = by_room[room].pop()
        if not by_room[room]:
            rooms ^= 1 << room
        row_of.append(row)
        by_room[room - length].append(row)
        rooms |= 1 << (room - length)
    left = np.zeros(rows, dtype=np.int64)
    for room, members in enumerate(by_room):
        left[members] = room
    return np.array(row_of, dtype=np.int64), left


def _cut_to_fit(
    lengths: np.ndarray, room: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lay items end to end over the rows' free room, the largest first, and cut them where a row is full.

    Returns:
        Item, offset in the item, length and row of each piece.
    """
    by_room = np.argsort(-room, kind="stable")
    item_ends, row_ends = np.cumsum(lengths), np.cumsum(room[by_room])
    total = item_ends[-1] if len(item_ends) else 0
    cuts = np.unique(np.concatenate([[0], item_ends, row_ends[row_ends < total]])).astype(np.int64)
    begin, length = cuts[:-1], np.diff(cuts)
    item = np.searchsorted(item_ends, begin, side="right")
    row = by_room[np.searchsorted(row_ends, begin, side="right")]
    return item, begin - (item_ends - lengths)[item], length, row


def _shuffled(pieces: np.ndarray, bits: np.random.PCG64) -> PackedRows:
    """Shuffle rows, and pieces within rows. `pieces` is (document, start, length, row) x pieces."""
    used, row = np.unique(pieces[3], return_inverse=True)
    row = _shuffle(len(used), bits)[row]
    order = np.lexsort((_shuffle(len(row), bits), row))
    document, start, length = pieces[:3, order].astype(np.uint32)
    row_starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(used)))]).astype(np.uint64)
    return PackedRows(document, start, length, row_starts)


def _shuffle(count: int, bits: np.random.PCG64) -> np.ndarray:
    """Return a permutation that, unlike `Generator.permutation`, is the same in all releases of numpy."""
    return np.argsort(bits.random_raw(count), kind="stable")

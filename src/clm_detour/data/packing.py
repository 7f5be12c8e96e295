"""Documents -> rows of `row_length` tokens, at least 99.9 % full whatever the documents' lengths.

The number of rows is fixed beforehand: what the tokens need, plus at most 0.1 %. A document longer than a
row gives full rows and a rest. Rests and shorter documents then go, whole, to the fullest row that still
has room for them (best fit): first in random order, so that a row mixes long and short, and at the end the
shortest, longest first, to close the gaps. What found no room whole is cut along the gaps that are left,
largest first. Without that, papers of 5,500 tokens would fill rows of 8,192 to 93 %; with it, 1 in 20 of
them is cut although it is no longer than a row. Of short texts almost none is.

Which document goes where, the order of rows, and the order within a row are shuffled by the seed. The cost
is about three microseconds a document: rows are kept by their room, and finding the least sufficient room is one
operation on the bits of an integer. Shards are packed one by one, so that a row never needs two of them:

    rows-8192.json          seed, rows, sizes and checksums
    rows-8192-00000.npy     first piece of each row, and the number of pieces at the end, uint64
    pieces-8192-00000.npy   of each piece its first token in the shard (uint64) and its length (uint32)
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clm_detour.data.shards import TokenShards, check_content, check_size, checksum, npy_bytes
from clm_detour.errors import UserError
from clm_detour.files import atomic_write, read_json, writable, write_json

FORMAT = 1
PER_MILLE_FULL = 999
CLOSING_SHARE = (
    0.2  # of the tokens, in the shortest documents, is kept for the end: it cuts fewest whole papers
)
PIECE = np.dtype([("start", "<u8"), ("length", "<u4")])


@dataclass(frozen=True)
class PackedRows:
    """Pieces of documents, row by row: those of row i are `row_starts[i]:row_starts[i + 1]`.

    Args:
        piece_document: index of the document, (pieces,) uint32.
        piece_start: first token inside the document, (pieces,) uint32.
        piece_length: number of tokens, (pieces,) uint32.
        row_starts: (rows + 1,) uint64.
    """

    piece_document: np.ndarray
    piece_start: np.ndarray
    piece_length: np.ndarray
    row_starts: np.ndarray

    def __len__(self) -> int:
        return len(self.row_starts) - 1


def pack(lengths: np.ndarray, row_length: int, seed: int) -> PackedRows:
    """Pack documents of `lengths` tokens, (documents,), all positive. The same arguments give the same rows.

    Every token is in one row. The rows are at least 99.9 % full, or as few as possible.
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


def _full_rows(full: np.ndarray, row_length: int, first_row: int) -> np.ndarray:
    """Pieces (document, start, length, row) x pieces for documents with `full[i]` rows of their own."""
    document = np.repeat(np.arange(len(full)), full)
    count = np.arange(len(document))
    start = (count - np.repeat(np.cumsum(full) - full, full)) * row_length
    return np.stack([document, start, np.full_like(start, row_length), first_row + count])


def _placing_order(lengths: np.ndarray, bits: np.random.PCG64) -> np.ndarray:
    """Indices of the positive `lengths`: shuffled, but the shortest last, longest first."""
    order = _shuffle(len(lengths), bits)
    order = order[lengths[order] > 0]
    order = order[np.argsort(-lengths[order], kind="stable")]
    first = np.searchsorted(np.cumsum(lengths[order]), (1 - CLOSING_SHARE) * lengths.sum())
    return np.concatenate([order[:first][_shuffle(int(first), bits)], order[first:]])


def _best_fit(lengths: list[int], rows: int, row_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Put each item into the row with the least sufficient room.

    Returns:
        The row of each item, -1 where none has room, and the room left in each row.
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
    """Lay items end to end over the rows' room, the largest first, and cut them where a row is full.

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
    """A permutation from raw bits: unlike `Generator.permutation`, the same in every release of numpy."""
    return np.argsort(bits.random_raw(count), kind="stable")


class Row(NamedTuple):
    """One row, not padded: its tokens, (<= row_length,), and the lengths of its pieces, (pieces,) int64."""

    tokens: np.ndarray
    lengths: np.ndarray


class Pieces(NamedTuple):
    """What a row is made of, (pieces,) int64: document (its number in the split), first token, length."""

    document: np.ndarray
    start: np.ndarray
    length: np.ndarray


def write_packing(folder: Path, row_length: int, seed: int) -> bool:
    """Pack the shards in `folder`, unless that has been done with these arguments.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: no sound shards, or the folder cannot be written.
    """
    shards = TokenShards.open(folder)
    head = {"format": FORMAT, "row_length": row_length, "seed": seed, "packed": shards.fingerprint}
    index_file = folder / f"rows-{row_length}.json"
    if _is_done(folder, head):
        return False
    with writable(folder):
        index_file.unlink(missing_ok=True)
    packed = [_pack_shard(shards, shard, row_length, seed) for shard in range(len(shards))]
    write_json(index_file, {**head, "shards": packed})
    return True


def _is_done(folder: Path, head: dict[str, Any]) -> bool:
    try:
        index = PackedSource.open(folder, head["row_length"]).index
    except UserError:
        return False
    return {key: index[key] for key in head} == head


def _pack_shard(shards: TokenShards, shard: int, row_length: int, seed: int) -> dict[str, Any]:
    """Write the rows of one shard; returns its entry in the index."""
    lengths = shards.lengths(shard)
    rows = pack(lengths, row_length, seed)
    pieces = np.empty(len(rows.piece_length), dtype=PIECE)
    pieces["start"] = (np.cumsum(lengths, dtype=np.uint64) - lengths)[rows.piece_document] + rows.piece_start
    pieces["length"] = rows.piece_length
    files = {}
    for name, array in zip(_names(row_length, shard), (rows.row_starts.astype("<u8"), pieces), strict=True):
        content = npy_bytes(array)
        with atomic_write(shards.folder / name) as file:
            file.write(content)
        files[name] = {"bytes": len(content), "checksum": checksum(content)}
    cut = np.bincount(rows.piece_document, minlength=len(lengths)) > 1
    return {"rows": len(rows), "cut": int((cut & (lengths <= row_length)).sum()), "files": files}


def _names(row_length: int, shard: int) -> tuple[str, str]:
    return f"rows-{row_length}-{shard:05d}.npy", f"pieces-{row_length}-{shard:05d}.npy"


class PackedSource:
    """The rows of one split of one source, memory-mapped.

    Cheap to send to another process: it is opened there anew.
    """

    def __init__(self, shards: TokenShards, index: dict[str, Any]):
        self.shards = shards
        self.index = index
        self.row_length: int = index["row_length"]
        self.num_tokens = shards.num_tokens
        self._row_ends = list(accumulate(shard["rows"] for shard in index["shards"]))
        self._document_ends = list(accumulate(shard["documents"] for shard in shards.index["shards"]))
        self._mapped: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    @classmethod
    def open(cls, folder: str | Path, row_length: int, fingerprint: str | None = None) -> PackedSource:
        """Open what `prepare_source` wrote for one split.

        Args:
            fingerprint: of the tokenizer, when it is to be checked.

        Raises:
            UserError: not prepared, not packed into rows of this length, a file missing or damaged, or
                another tokenizer.
        """
        shards = TokenShards.open(folder, fingerprint)
        file = shards.folder / f"rows-{row_length}.json"
        if not file.is_file():
            raise UserError(
                f"{folder} is not packed into rows of {row_length:,} tokens: run `clm-detour prepare`."
            )
        index = read_json(file)
        if not isinstance(index, dict) or index.get("packed") != shards.fingerprint:
            raise UserError(f"{file} belongs to other shards: run `clm-detour prepare` again.")
        source = cls(shards, index)
        source._each_file(lambda path, size, _: check_size(path, size))
        return source

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedSource.open, (self.shards.folder, self.row_length)

    def __len__(self) -> int:
        return self._row_ends[-1] if self._row_ends else 0

    @property
    def documents(self) -> int:
        """The number of documents."""
        return self.shards.documents

    @property
    def cut(self) -> int:
        """How many documents are cut although they are no longer than a row."""
        return sum(shard["cut"] for shard in self.index["shards"])

    @property
    def fullness(self) -> float:
        """Tokens over places for tokens."""
        return self.num_tokens / max(len(self) * self.row_length, 1)

    @cached_property
    def fingerprint(self) -> str:
        """Of the rows, their order and their tokens: what a training stream depends on."""
        return checksum(
            repr([self.index[key] for key in ("format", "row_length", "seed", "packed")]).encode()
        )

    def row(self, number: int) -> Row:
        """Row `number`, copied out of the memory map; tokens keep the shards' dtype."""
        shard, pieces = self._locate(number)
        tokens = self._arrays(shard)[0]
        parts = [tokens[start : start + length] for start, length in pieces.tolist()]
        return Row(np.concatenate(parts), pieces["length"].astype(np.int64))

    def pieces(self, number: int) -> Pieces:
        """Which documents row `number` is made of."""
        shard, pieces = self._locate(number)
        lengths = self.shards.lengths(shard)
        ends = np.cumsum(lengths, dtype=np.uint64)
        document = np.searchsorted(ends, pieces["start"], side="right")
        start = pieces["start"] - (ends - lengths)[document]
        first = self._document_ends[shard] - len(lengths)
        return Pieces(first + document, start.astype(np.int64), pieces["length"].astype(np.int64))

    def verify(self) -> None:
        """Read everything and recompute the checksums.

        Raises:
            UserError: a file's content is not what was written.
        """
        self.shards.verify()
        self._each_file(lambda path, _, expected: check_content(path, expected))

    def _locate(self, number: int) -> tuple[int, np.ndarray]:
        assert 0 <= number < len(self), (number, len(self))
        shard = bisect.bisect_right(self._row_ends, number)
        row = number - self._row_ends[shard] + self.index["shards"][shard]["rows"]
        _, row_starts, pieces = self._arrays(shard)
        return shard, pieces[int(row_starts[row]) : int(row_starts[row + 1])]

    def _arrays(self, shard: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if shard not in self._mapped:
            files = [self.shards.folder / name for name in _names(self.row_length, shard)]
            rows, pieces = (np.load(file, mmap_mode="r") for file in files)
            # `asarray` gives plain arrays over the same map: slicing them is several times faster.
            tokens = np.asarray(self.shards.tokens(shard))
            self._mapped[shard] = (tokens, np.asarray(rows), np.asarray(pieces))
        return self._mapped[shard]

    def _each_file(self, check: Callable[[Path, int, str], None]) -> None:
        for shard in self.index["shards"]:
            for name, entry in shard["files"].items():
                check(self.shards.folder / name, entry["bytes"], entry["checksum"])

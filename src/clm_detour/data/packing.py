"""Packed rows on disk: the pieces of documents that make up each row.

    rows-8192.json        the seed; for each shard the numbers of rows and pieces, size and checksum
    rows-8192-00000.bin   first piece of each row, and the number of pieces at the end, uint64; CRC-32 of each
                          row, uint32; for each piece its first token in the shard (uint64) and its length
                          (uint32); little-endian
    rows-8192-00000.json  the shard's entry in the index, and what it was packed from, to resume packing

Shards are packed one by one, so a row needs one shard only. Each row is checked against its CRC whenever it
is read, in five microseconds for 8,192 tokens. So training never uses a damaged token, and neither the start
nor the change to another shard waits until a whole shard has been read.
"""

from __future__ import annotations

import bisect
import os
import random
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from clm_detour.data.best_fit import METHOD, pack_pieces
from clm_detour.data.cache import ShardCache
from clm_detour.data.mixture import WINDOW_SHARDS
from clm_detour.data.shards import REMEDY, TokenShards, checksum, tokens_name
from clm_detour.data.storage import Location, RemoteFolder, check_content, check_size, folder_at
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write, read_json, writable, write_json
from clm_detour.utils.parallel import Worker, parallel_map

FORMAT = 2
LONGEST = "longest"  # key of an index: the number of tokens at which documents are cut
PIECE = np.dtype([("start", "<u8"), ("length", "<u4")])
OPEN_SHARDS = WINDOW_SHARDS  # for each source; each takes two of the process's file descriptors


class Row(NamedTuple):
    """One row, not padded: its tokens, (<= row_length,), and the lengths of its pieces, (pieces,) int64."""

    tokens: np.ndarray
    lengths: np.ndarray


class Pieces(NamedTuple):
    """The pieces of a row, each (pieces,) int64: document (its number in the split), first token, length."""

    document: np.ndarray
    start: np.ndarray
    length: np.ndarray


def write_packing(
    folder: Path,
    row_length: int,
    seed: int,
    processes: int = 1,
    on_progress: Callable[..., None] = lambda *_: None,
    longest: int | None = None,
) -> bool:
    """Pack the shards in `folder` that have not been packed with these arguments.

    Args:
        longest: Number of tokens at which documents are cut, less than a row; None if they fill rows.
        on_progress: Function that receives numbers of packed tokens.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: If the shards are missing or damaged, or the folder cannot be written.
    """
    if is_packed_with(folder, row_length, seed, longest):
        return False
    index_file = folder / index_name(row_length)
    with writable(folder):
        index_file.unlink(missing_ok=True)
    shards = TokenShards.open(folder)
    tasks = [ToPack(folder, shard, row_length, seed, longest) for shard in range(len(shards))]
    packed = parallel_map(pack_shard, tasks, processes=processes, on_progress=on_progress, remedy=REMEDY)
    write_json(index_file, {**_head(shards, row_length, seed, longest), "shards": packed})
    return True


def is_packed(location: Location, row_length: int, cache: ShardCache | None = None) -> bool:
    """Return whether the shards at a location have been packed into rows of this length, correctly or not."""
    return index_name(row_length) in folder_at(location, cache).sizes()


def is_packed_with(folder: Path, row_length: int, seed: int, longest: int | None = None) -> bool:
    """Return whether there are intact rows, packed from the present shards with these arguments."""
    try:
        rows = PackedSource.open(folder, row_length)
    except UserError:
        return False
    head = _head(rows.shards, row_length, seed, longest)
    return {key: rows.index.get(key) for key in (*head, LONGEST)} == {LONGEST: None, **head}


def _head(shards: TokenShards, row_length: int, seed: int, longest: int | None) -> dict[str, Any]:
    """Return everything that the rows depend on."""
    how = {"format": FORMAT, "method": METHOD, "row_length": row_length, "seed": seed}
    return {**how, **({} if longest is None else {LONGEST: longest}), "packed": shards.fingerprint}


class ToPack(NamedTuple):
    """The arguments for packing one shard of a folder."""

    folder: Path
    shard: int
    row_length: int
    seed: int
    longest: int | None


def pack_shard(_: object, task: ToPack, worker: Worker) -> dict[str, Any]:
    """Write the rows of one shard, unless this has been done. Return its entry in the index.

    Raises:
        UserError: If the shard is damaged.
    """
    folder, shard, row_length, seed, longest = task
    shards = TokenShards.open(folder)
    tokens = shards.index["shards"][shard]
    made_from = [FORMAT, METHOD, seed, tokens["checksum"], tokens["lengths_checksum"]]
    made_from += [] if longest is None else [longest]
    file, record = folder / rows_name(row_length, shard), folder / record_name(row_length, shard)
    if file.is_file() and record.is_file():
        there = read_json(record)
        if there["made_from"] == made_from and there["entry"]["bytes"] == file.stat().st_size:
            return there["entry"]
    lengths = shards.lengths(shard)
    rows = pack_pieces(lengths, row_length, seed, longest)
    pieces = np.empty(len(rows.piece_length), dtype=PIECE)
    pieces["start"] = (np.cumsum(lengths, dtype=np.uint64) - lengths)[rows.piece_document] + rows.piece_start
    pieces["length"] = rows.piece_length
    checks = _row_checks(shards.tokens(shard), rows.row_starts.tolist(), pieces)
    content = b"".join(array.tobytes() for array in (rows.row_starts.astype("<u8"), checks, pieces))
    cut = np.bincount(rows.piece_document, minlength=len(lengths)) > 1
    entry = {
        "rows": len(rows),
        "pieces": len(pieces),
        "cut": int((cut & (lengths <= (longest or row_length))).sum()),
        "bytes": len(content),
        "checksum": checksum(content),
    }
    with writable(folder):
        record.unlink(missing_ok=True)
    with atomic_write(file) as opened:
        opened.write(content)
    write_json(record, {"made_from": made_from, "entry": entry})
    worker.report(int(lengths.sum()))
    return entry


def _row_checks(tokens: np.ndarray, row_starts: list[int], pieces: np.ndarray) -> np.ndarray:
    """Return the CRC of each row, (rows,) uint32."""
    rows = (_join_pieces(tokens, pieces[first:end]) for first, end in pairwise(row_starts))
    return np.fromiter((_crc(row) for row in rows), dtype="<u4", count=len(row_starts) - 1)


def _join_pieces(tokens: np.ndarray, pieces: np.ndarray) -> Row:
    """Return the row that consists of these pieces of a shard."""
    parts = [tokens[start : start + length] for start, length in pieces.tolist()]
    return Row(np.concatenate([tokens[:0], *parts]), pieces["length"].astype("<i8"))


def _crc(row: Row) -> int:
    return zlib.crc32(row.lengths.data, zlib.crc32(row.tokens.data))


def index_name(row_length: int) -> str:
    """Return the file name of the index of the rows of one length."""
    return f"rows-{row_length}.json"


def rows_name(row_length: int, shard: int) -> str:
    """Return the file name of a shard's rows."""
    return f"rows-{row_length}-{shard:05d}.bin"


def record_name(row_length: int, shard: int) -> str:
    """Return the file name of the record of a shard's rows."""
    return f"rows-{row_length}-{shard:05d}.json"


class Arrays(NamedTuple):
    """Views of the memory maps of one shard's rows, sliced several times faster than `np.memmap`.

    Args:
        tokens: Token ids, (tokens,) uint16 or uint32.
        row_starts: First piece of each row, (rows + 1,) uint64.
        checks: CRC of each row, (rows,) uint32.
        pieces: Pieces of all rows, (pieces,) PIECE.
    """

    tokens: np.ndarray
    row_starts: np.ndarray
    checks: np.ndarray
    pieces: np.ndarray


class PackedSource:
    """The rows of one split of one source, memory-mapped.

    Sending it to another process is cheap: it is opened again there.
    """

    def __init__(self, shards: TokenShards, index: dict[str, Any]):
        self.shards = shards
        self.index = index
        self.row_length: int = index["row_length"]
        self.longest: int | None = index.get(LONGEST)  # tokens of the longest piece, None for a row
        self.num_tokens = shards.num_tokens
        self.shard_rows: list[int] = [shard["rows"] for shard in index["shards"]]
        self._row_ends = list(accumulate(self.shard_rows))
        self._document_ends = list(accumulate(shard["documents"] for shard in shards.index["shards"]))
        self._mapped: dict[int, Arrays] = {}
        self._ahead: list[int] = []

    @classmethod
    def open(
        cls,
        location: Location,
        row_length: int,
        fingerprint: str | None = None,
        cache: ShardCache | None = None,
    ) -> PackedSource:
        """Open what `prepare_source` wrote for one split, in a folder or at a URL.

        Args:
            fingerprint: Fingerprint that the tokenizer must have, if it is to be checked.
            cache: Cache for the files of a URL.

        Raises:
            UserError: If the source is not prepared, not packed into rows of this length, made with another
                tokenizer, or a file is missing or damaged.
        """
        shards = TokenShards.open(location, fingerprint, cache)
        folder, sizes = shards.folder, shards.folder.sizes()
        if index_name(row_length) not in sizes:
            raise UserError(
                f"{folder} is not packed into rows of {row_length:,} tokens: run `clm-detour prepare`."
            )
        index = folder.read_json(index_name(row_length))
        if not isinstance(index, dict) or index.get("format") != FORMAT:
            raise UserError(
                f"{folder}/{index_name(row_length)} is not of format {FORMAT}: run `clm-detour prepare` "
                "again."
            )
        if index["packed"] != shards.fingerprint:
            raise UserError(
                f"{folder}/{index_name(row_length)} belongs to other shards: run `clm-detour prepare` again."
            )
        for shard, entry in enumerate(index["shards"]):
            check_size(folder, sizes, rows_name(row_length, shard), entry["bytes"])
        return cls(shards, index)

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedSource.open, (self.shards.folder, self.row_length)

    def __len__(self) -> int:
        return self._row_ends[-1] if self._row_ends else 0

    @property
    def is_remote(self) -> bool:
        """True if files are read through the cache."""
        return isinstance(self.shards.folder, RemoteFolder)

    @property
    def documents(self) -> int:
        """Number of documents."""
        return self.shards.documents

    @property
    def cut(self) -> int:
        """Number of documents that are cut although they are no longer than a row."""
        return sum(shard["cut"] for shard in self.index["shards"])

    @property
    def fullness(self) -> float:
        """Number of tokens divided by the number of places for tokens."""
        return self.num_tokens / max(len(self) * self.row_length, 1)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the rows, their order and their tokens: everything that a training stream depends on."""
        keys = ["method", "row_length", "seed", "packed", *([LONGEST] if self.longest else [])]
        return checksum(repr([self.index[key] for key in keys]).encode())

    def row(self, number: int) -> Row:
        """Return row `number`, copied out of the memory map. Tokens keep the data type of the shards.

        Raises:
            UserError: If the row has changed since it was packed.
        """
        shard, place = self._locate(number)
        arrays = self._arrays(shard)
        row = _join_pieces(arrays.tokens, _pieces_of(arrays, place))
        if _crc(row) != arrays.checks[place]:
            folder = self.shards.folder
            raise UserError(
                f"{folder}/{tokens_name(shard)} or {rows_name(self.row_length, shard)} beside it is damaged "
                f"(row {place} is not what was packed): {folder.remedy}."
            )
        return row

    def pieces(self, number: int) -> Pieces:
        """Return the pieces of documents that row `number` consists of."""
        shard, place = self._locate(number)
        pieces = _pieces_of(self._arrays(shard), place)
        lengths = self.shards.lengths(shard)
        ends = np.cumsum(lengths, dtype=np.uint64)
        document = np.searchsorted(ends, pieces["start"], side="right")
        start = pieces["start"] - (ends - lengths)[document]
        first = self._document_ends[shard] - len(lengths)
        return Pieces(first + document, start.astype(np.int64), pieces["length"].astype(np.int64))

    def fetch_ahead(self, now: Sequence[int], after: Sequence[int]) -> None:
        """Copy the files of shards into the cache in the background, those of `now` first.

        Processes take the shards in different orders, and so download different files at the same time. A
        failure is left to the reader, which meets it again. The next call for other shards ends this download
        after the current file, so that a small cache does not lose files that are needed to files that are no
        longer needed.
        """
        if self._ahead == list(after):
            return
        self._ahead = ahead = list(after)
        rng = random.Random(os.getpid())
        shards = [*rng.sample(now, len(now)), *rng.sample(after, len(after))]
        threading.Thread(target=self._fetch, args=(shards, ahead), daemon=True).start()

    @property
    def bytes_at_a_time(self) -> int:
        """Largest total size of the shards in use and the next ones, in bytes."""
        pairs = zip(self.index["shards"], self.shards.index["shards"], strict=True)
        sizes = [rows["bytes"] + tokens["bytes"] for rows, tokens in pairs]
        return sum(sorted(sizes)[-2 * WINDOW_SHARDS :])

    def release(self) -> None:
        """Close the files of all shards, so that the cache can remove them. Reading opens a shard again."""
        self._mapped.clear()

    def verify(self) -> None:
        """Read everything and recompute the checksums.

        Raises:
            UserError: If the content of a file has changed.
        """
        self.shards.verify()
        for shard, entry in enumerate(self.index["shards"]):
            check_content(self.shards.folder, rows_name(self.row_length, shard), entry["checksum"])

    def _locate(self, number: int) -> tuple[int, int]:
        """Return the shard of a row, and its place there."""
        assert 0 <= number < len(self), (number, len(self))
        shard = bisect.bisect_right(self._row_ends, number)
        return shard, number - self._row_ends[shard] + self.shard_rows[shard]

    def _fetch(self, shards: Sequence[int], ahead: list[int]) -> None:
        with suppress(UserError):
            for shard in shards:
                if self._ahead is not ahead:
                    return
                self._open_rows(shard).close()
                self.shards.open_tokens(shard).close()

    def _open_rows(self, shard: int) -> IO[bytes]:
        entry, name = self.index["shards"][shard], rows_name(self.row_length, shard)
        return self.shards.folder.open(name, entry["bytes"], entry["checksum"])

    def _arrays(self, shard: int) -> Arrays:
        if shard in self._mapped:
            return self._mapped[shard]
        entry = self.index["shards"][shard]
        rows = entry["rows"]
        with self._open_rows(shard) as file:
            content = np.memmap(file, mode="r")
        if len(self._mapped) == OPEN_SHARDS:
            del self._mapped[next(iter(self._mapped))]
        self._mapped[shard] = Arrays(
            np.asarray(self.shards.map(shard)),
            np.frombuffer(content, "<u8", rows + 1),
            np.frombuffer(content, "<u4", rows, offset=8 * (rows + 1)),
            np.frombuffer(content, PIECE, entry["pieces"], offset=8 * (rows + 1) + 4 * rows),
        )
        return self._mapped[shard]


def _pieces_of(arrays: Arrays, place: int) -> np.ndarray:
    """Return the pieces of one row of a shard."""
    return arrays.pieces[int(arrays.row_starts[place]) : int(arrays.row_starts[place + 1])]

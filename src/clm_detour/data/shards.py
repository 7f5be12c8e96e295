"""Tokens on disk: memory-mapped shards, with an index by which damage is noticed.

    <source>/<split>/tokens-00000.bin    ids of all documents end to end, little-endian, uint16 or uint32
                     lengths-00000.npy   tokens of each document, uint32
                     shard-00000.json    a shard's counts, sizes and checksums, written after its files
                     index.json          all of these, and what the shards were made from

A document never crosses shards. The index is written last, so a folder without one is unfinished. Opening
checks the size of every file; `verify` reads everything and checks the checksums. The folder may also be at a
URL that fsspec can open; its files are then mapped from a local cache.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from typing import IO, Any

import numpy as np

from clm_detour.data.cache import ShardCache
from clm_detour.data.storage import Folder, LocalFolder, Location, check_content, check_size, folder_at
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import HALF_WRITTEN, atomic_write, read_json, writable, write_json

FORMAT = 1
SPLITS = ("train", "held_out")
SHARD_TOKENS = 2**26
REMEDY = "set data.processes lower"  # if a worker process runs out of memory
RECORD = re.compile(r"shard-(\d{5,})\.json")
OF_A_SHARD = re.compile(r"(?:shard|tokens|lengths|rows-\d+)-(\d{5,})\.\w+")
Entry = dict[str, Any]  # of a shard in the index


def token_dtype(vocab_size: int) -> np.dtype:
    """Return the smallest unsigned integer type that holds every id."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


class ShardWriter:
    """Writes documents into shards of about `shard_tokens` tokens, which is also how many are kept in memory.

    Shards that an interrupted writer finished are kept: continue after the first `documents` documents.

    Raises:
        UserError: If the folder cannot be written, or the disk is full.
    """

    def __init__(self, folder: Path, vocab_size: int, shard_tokens: int = SHARD_TOKENS):
        self.folder = folder
        self.dtype = token_dtype(vocab_size)
        self.shard_tokens = shard_tokens
        with writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        found = whole_shards(folder)
        self.shards = [found[number] for number in takewhile(found.__contains__, count())]
        remove_shards(folder, keep=range(len(self.shards)))
        self.documents = sum(shard["documents"] for shard in self.shards)
        self._documents: list[np.ndarray] = []
        self._tokens = 0

    def add(self, ids: np.ndarray) -> None:
        """Append one document."""
        self.documents += 1
        self._documents.append(ids.astype(self.dtype))
        self._tokens += len(ids)
        if self._tokens >= self.shard_tokens:
            self._flush()

    def finish(self) -> list[Entry]:
        """Write the last shard. Return the entries of all shards."""
        if self._documents:
            self._flush()
        return self.shards

    def _flush(self) -> None:
        lengths = np.array([len(ids) for ids in self._documents], dtype="<u4")
        self.shards.append(
            write_shard(self.folder, len(self.shards), [np.concatenate(self._documents)], lengths)
        )
        self._documents, self._tokens = [], 0


def write_shard(
    folder: Path,
    number: int,
    tokens: Iterable[np.ndarray],
    lengths: np.ndarray,
    more: dict[str, Any] | None = None,
) -> Entry:
    """Write one shard, and last the record by which it is known to be complete.

    Args:
        tokens: Token ids, in any number of arrays, which are never held in memory all at once.
        lengths: Number of tokens of each document, (documents,) <u4.
        more: Additional content of its entry.

    Returns:
        Its entry in the index.
    """
    digest, size = hashlib.blake2b(digest_size=16), 0
    with atomic_write(folder / tokens_name(number)) as file:
        for array in tokens:
            content = raw(array)
            digest.update(content)
            size += file.write(content)
    sizes = npy_bytes(lengths)
    with atomic_write(folder / lengths_name(number)) as file:
        file.write(sizes)
    entry = {
        "documents": len(lengths),
        "tokens": int(lengths.sum(dtype=np.int64)),
        "bytes": size,
        "checksum": digest.hexdigest(),
        "lengths_bytes": len(sizes),
        "lengths_checksum": checksum(sizes),
        **(more or {}),
    }
    write_json(folder / record_name(number), entry)
    return entry


def whole_shards(folder: Path) -> dict[int, Entry]:
    """Return the entries of the shards in a folder whose files have the right sizes, by number."""
    sizes, found = LocalFolder(folder).sizes(), {}
    for name in sorted(sizes):
        if record := RECORD.fullmatch(name):
            number, entry = int(record[1]), read_json(folder / name)
            there = sizes.get(tokens_name(number)), sizes.get(lengths_name(number))
            if there == (entry["bytes"], entry["lengths_bytes"]):
                found[number] = entry
    return found


def remove_shards(folder: Path, keep: Container[int] = ()) -> None:
    """Delete the indices, temporary files, and all shards except those with numbers in `keep`."""
    with writable(folder):
        for pattern in (
            "index.json",
            "shard-*.json",
            "lengths-*.npy",
            "tokens-*.bin",
            "rows-*",
            HALF_WRITTEN,
        ):
            for file in folder.glob(pattern):
                number = OF_A_SHARD.fullmatch(file.name)
                if number is None or int(number[1]) not in keep:
                    file.unlink()


def write_index(
    folder: Path,
    shards: Sequence[Entry],
    tokenizer: Mapping[str, Any],
    made_from: Mapping[str, Any],
    dropped: Mapping[str, int],
) -> None:
    """Write the index of a folder's shards, after which the folder is finished.

    Args:
        tokenizer: Its `fingerprint` and `vocab_size`.
        dropped: Number of records that were left out, by reason.
    """
    index = {
        "format": FORMAT,
        "dtype": token_dtype(tokenizer["vocab_size"]).name,
        "tokenizer": dict(tokenizer),
        "documents": sum(shard["documents"] for shard in shards),
        "tokens": sum(shard["tokens"] for shard in shards),
        "dropped": dict(sorted(dropped.items())),
        "made_from": dict(made_from),
        "shards": list(shards),
    }
    write_json(folder / "index.json", index)


class TokenShards:
    """The documents of one split of one source, memory-mapped shard by shard.

    Sending it to another process is cheap: it is opened again there.
    """

    def __init__(self, folder: Folder, index: dict[str, Any]):
        self.folder = folder
        self.index = index
        self.dtype = np.dtype(index["dtype"]).newbyteorder("<")
        self.documents: int = index["documents"]
        self.num_tokens: int = index["tokens"]

    @classmethod
    def open(
        cls, location: Location, tokenizer_fingerprint: str | None = None, cache: ShardCache | None = None
    ) -> TokenShards:
        """Open what `write_index` finished, in a folder or at a URL.

        Raises:
            UserError: If nothing was prepared there, a file is missing or has another size than in the index,
                the tokens come from another tokenizer than `tokenizer_fingerprint`, or there is no cache for
                a URL.
        """
        folder = folder_at(location, cache)
        sizes = folder.sizes()
        if "index.json" not in sizes:
            raise UserError(f"{folder} holds no finished shards (no index.json): run `clm-detour prepare`.")
        index = folder.read_json("index.json")
        if not isinstance(index, dict) or index.get("format") != FORMAT:
            raise UserError(f"{folder}/index.json is not of format {FORMAT}: {folder.remedy}.")
        made_with = index["tokenizer"]["fingerprint"]
        if tokenizer_fingerprint not in (None, made_with):
            raise UserError(
                f"{folder} was made with another tokenizer (fingerprint {made_with[:12]}, not "
                f"{str(tokenizer_fingerprint)[:12]}): {folder.remedy}, or choose another data.dir."
            )
        shards = cls(folder, index)
        for name, size, _ in shards.files():
            check_size(folder, sizes, name, size)
        return shards

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenShards.open, (self.folder,)

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self.index["shards"])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the documents, their order and their tokens."""
        return checksum(repr([(s["checksum"], s["lengths_checksum"]) for s in self.index["shards"]]).encode())

    def tokens(self, shard: int) -> np.ndarray:
        """Return the ids of a shard's documents end to end, verified: a read-only memory map, (tokens,)
        uint16 or uint32.

        Raises:
            UserError: If the shard is damaged.
        """
        check_content(self.folder, tokens_name(shard), self.index["shards"][shard]["checksum"])
        return self.map(shard)

    def map(self, shard: int) -> np.ndarray:
        """Return the same as `tokens` without verifying it, for callers that check what they read."""
        with self.open_tokens(shard) as file:
            return np.memmap(file, dtype=self.dtype, mode="r")

    def open_tokens(self, shard: int) -> IO[bytes]:
        """Open the file of a shard's tokens, or its copy in the cache."""
        entry = self.index["shards"][shard]
        return self.folder.open(tokens_name(shard), entry["bytes"], entry["checksum"])

    def lengths(self, shard: int) -> np.ndarray:
        """Return the number of tokens of each document of a shard, (documents,) uint32."""
        entry = self.index["shards"][shard]
        with self.folder.open(lengths_name(shard), entry["lengths_bytes"], entry["lengths_checksum"]) as file:
            return np.load(file)

    def verify(self) -> None:
        """Read everything and recompute the checksums.

        Raises:
            UserError: If the content of a file has changed.
        """
        for name, _, expected in self.files():
            check_content(self.folder, name, expected)

    def files(self) -> Iterator[tuple[str, int, str]]:
        """Yield name, size in bytes and checksum of every file."""
        for number, shard in enumerate(self.index["shards"]):
            yield tokens_name(number), shard["bytes"], shard["checksum"]
            yield lengths_name(number), shard["lengths_bytes"], shard["lengths_checksum"]


def tokens_name(shard: int) -> str:
    """Return the file name of a shard's tokens."""
    return f"tokens-{shard:05d}.bin"


def lengths_name(shard: int) -> str:
    """Return the file name of a shard's document lengths."""
    return f"lengths-{shard:05d}.npy"


def record_name(shard: int) -> str:
    """Return the file name of a shard's record."""
    return f"shard-{shard:05d}.json"


def checksum(content: bytes | memoryview) -> str:
    """Return BLAKE2b of 16 bytes, in hex. It runs at about 1 GB/s."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def raw(array: np.ndarray) -> memoryview:
    """Return the bytes of an array."""
    return np.ascontiguousarray(array).view(np.uint8).data


def npy_bytes(array: np.ndarray) -> bytes:
    """Return `array` as the content of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()

"""Tokens on disk: shards that are memory-mapped, with an index that can tell whether they are whole.

    <source>/<split>/tokens-00000.bin    ids of all documents end to end, little-endian, uint16 or uint32
                     lengths-00000.npy   tokens of each document, uint32
                     index.json          counts, sizes and checksums, and what the shards were made from

A document never crosses shards. The index is written last, so a folder without one is unfinished. Opening
checks the size of every file; `verify` reads everything and checks the checksums. The folder may lie at any URL that fsspec knows: its
files are then mapped from a local cache.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from clm_detour.data.cache import ShardCache
from clm_detour.data.folders import Folder, Location, check_content, check_size, folder_at
from clm_detour.errors import UserError
from clm_detour.files import atomic_write, writable, write_json

FORMAT = 1
SHARD_TOKENS = 2**26


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest unsigned integer that holds every id."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


class ShardWriter:
    """Write documents into shards of about `shard_tokens`, which is also what is kept in memory.

    What an earlier writer left in the folder is deleted first.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """

    def __init__(self, folder: Path, fingerprint: str, vocab_size: int, shard_tokens: int = SHARD_TOKENS):
        self.folder = folder
        self.tokenizer = {"fingerprint": fingerprint, "vocab_size": vocab_size}
        self.dtype = token_dtype(vocab_size)
        self.shard_tokens = shard_tokens
        self.shards: list[dict[str, Any]] = []
        self.documents = 0
        self._documents: list[np.ndarray] = []
        self._tokens = 0
        with writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for pattern in ("index.json", "rows-*", "lengths-*.npy", "tokens-*.bin"):
                for file in folder.glob(pattern):
                    file.unlink()

    def add(self, ids: np.ndarray) -> None:
        """Append one document."""
        self.documents += 1
        self._documents.append(ids.astype(self.dtype))
        self._tokens += len(ids)
        if self._tokens >= self.shard_tokens:
            self._flush()

    def finish(self, made_from: dict[str, Any], dropped: dict[str, int]) -> None:
        """Write the last shard and the index."""
        if self._documents:
            self._flush()
        index = {
            "format": FORMAT,
            "dtype": self.dtype.name,
            "tokenizer": self.tokenizer,
            "documents": self.documents,
            "tokens": sum(shard["tokens"] for shard in self.shards),
            "dropped": dict(sorted(dropped.items())),
            "made_from": made_from,
            "shards": self.shards,
        }
        write_json(self.folder / "index.json", index)

    def _flush(self) -> None:
        number, documents = len(self.shards), self._documents
        tokens = np.concatenate(documents).tobytes()
        lengths = npy_bytes(np.array([len(ids) for ids in documents], dtype="<u4"))
        self.shards.append(
            {
                "documents": len(documents),
                "tokens": self._tokens,
                "bytes": len(tokens),
                "checksum": checksum(tokens),
                "lengths_bytes": len(lengths),
                "lengths_checksum": checksum(lengths),
            }
        )
        for name, content in ((tokens_name(number), tokens), (lengths_name(number), lengths)):
            with atomic_write(self.folder / name) as file:
                file.write(content)
        self._documents, self._tokens = [], 0


class TokenShards:
    """The documents of one split of one source, memory-mapped shard by shard.

    Cheap to send to another process: it is opened there anew.
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
        """Open what `ShardWriter` finished, in a folder or at a URL.

        Raises:
            UserError: nothing prepared there, a file is missing or has another size than in the index, the
                tokens come from another tokenizer than `tokenizer_fingerprint`, or a URL comes without a cache.
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
        """The number of shards."""
        return len(self.index["shards"])

    @cached_property
    def fingerprint(self) -> str:
        """Of the documents, their order and their tokens."""
        return checksum(repr([(s["checksum"], s["lengths_checksum"]) for s in self.index["shards"]]).encode())

    def tokens(self, shard: int) -> np.ndarray:
        """The ids of a shard's documents end to end, verified: a read-only memory map, (tokens,) uint16 or uint32.

        Raises:
            UserError: the shard is damaged.
        """
        check_content(self.folder, tokens_name(shard), self.index["shards"][shard]["checksum"])
        return self.map(shard)

    def map(self, shard: int) -> np.ndarray:
        """The same without reading it: for those who check what they take."""
        with self.open_tokens(shard) as file:
            return np.memmap(file, dtype=self.dtype, mode="r")

    def open_tokens(self, shard: int) -> IO[bytes]:
        """The file of a shard's tokens, or its copy in the cache."""
        entry = self.index["shards"][shard]
        return self.folder.open(tokens_name(shard), entry["bytes"], entry["checksum"])

    def lengths(self, shard: int) -> np.ndarray:
        """The number of tokens of each document of a shard, (documents,) uint32."""
        entry = self.index["shards"][shard]
        with self.folder.open(lengths_name(shard), entry["lengths_bytes"], entry["lengths_checksum"]) as file:
            return np.load(file)

    def verify(self) -> None:
        """Read everything and recompute the checksums.

        Raises:
            UserError: a file's content is not what was written.
        """
        for name, _, expected in self.files():
            check_content(self.folder, name, expected)

    def files(self) -> Iterator[tuple[str, int, str]]:
        """Name, bytes and checksum of every file."""
        for number, shard in enumerate(self.index["shards"]):
            yield tokens_name(number), shard["bytes"], shard["checksum"]
            yield lengths_name(number), shard["lengths_bytes"], shard["lengths_checksum"]


def tokens_name(shard: int) -> str:
    """File name of a shard's tokens."""
    return f"tokens-{shard:05d}.bin"


def lengths_name(shard: int) -> str:
    """File name of a shard's document lengths."""
    return f"lengths-{shard:05d}.npy"


def checksum(content: bytes | memoryview) -> str:
    """BLAKE2b of 16 bytes, in hex: about 1 GB/s, and in the standard library."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def npy_bytes(array: np.ndarray) -> bytes:
    """`array` as the content of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()

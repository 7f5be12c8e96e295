"""Tokens on disk: shards that are memory-mapped, with an index that can tell whether they are whole.

    <source>/<split>/tokens-00000.bin    ids of all documents end to end, little-endian, uint16 or uint32
                     lengths-00000.npy   tokens of each document, uint32
                     index.json          counts, sizes and checksums, and what the shards were made from

A document never crosses shards. The index is written last, so a folder without one is unfinished. Opening
checks the size of every file; `verify` reads everything and checks the checksums.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from clm_detour.errors import UserError
from clm_detour.files import atomic_write, file_checksum, read_json, writable, write_json

FORMAT = 1
SHARD_TOKENS = 2**26
REMEDY = "delete the folder and run `clm-detour prepare` again"


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
            for pattern in ("index.json", "rows-*", "pieces-*", "lengths-*.npy", "tokens-*.bin"):
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

    def __init__(self, folder: Path, index: dict[str, Any]):
        self.folder = folder
        self.index = index
        self.dtype = np.dtype(index["dtype"]).newbyteorder("<")
        self.documents: int = index["documents"]
        self.num_tokens: int = index["tokens"]
        self._mapped: dict[int, np.ndarray] = {}

    @classmethod
    def open(cls, folder: str | Path, tokenizer_fingerprint: str | None = None) -> TokenShards:
        """Open a folder that `ShardWriter` finished.

        Raises:
            UserError: nothing prepared there, a file is missing or has another size than in the index, or the
                tokens come from another tokenizer than `tokenizer_fingerprint`.
        """
        folder = Path(folder)
        if not (folder / "index.json").is_file():
            raise UserError(f"{folder} holds no finished shards (no index.json): run `clm-detour prepare`.")
        index = read_json(folder / "index.json")
        if not isinstance(index, dict) or index.get("format") != FORMAT:
            raise UserError(f"{folder / 'index.json'} is not of format {FORMAT}: {REMEDY}.")
        made_with = index["tokenizer"]["fingerprint"]
        if tokenizer_fingerprint not in (None, made_with):
            raise UserError(
                f"{folder} was made with another tokenizer (fingerprint {made_with[:12]}, not "
                f"{str(tokenizer_fingerprint)[:12]}): {REMEDY}, or choose another data.dir."
            )
        shards = cls(folder, index)
        shards._each_file(lambda path, size, _: check_size(path, size))
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
        """The ids of a shard's documents end to end: a read-only memory map, (tokens,) uint16 or uint32.

        The first use of a shard verifies its checksum, so that no damaged token is ever trained on.

        Raises:
            UserError: the shard is damaged.
        """
        if shard not in self._mapped:
            file = self.folder / tokens_name(shard)
            check_content(file, self.index["shards"][shard]["checksum"])
            self._mapped[shard] = np.memmap(file, dtype=self.dtype, mode="r")
        return self._mapped[shard]

    def lengths(self, shard: int) -> np.ndarray:
        """The number of tokens of each document of a shard, (documents,) uint32."""
        return np.load(self.folder / lengths_name(shard))

    def verify(self) -> None:
        """Read everything and recompute the checksums.

        Raises:
            UserError: a file's content is not what was written.
        """
        self._each_file(lambda path, _, expected: check_content(path, expected))

    def _each_file(self, check: Callable[[Path, int, str], None]) -> None:
        for number, shard in enumerate(self.index["shards"]):
            check(self.folder / tokens_name(number), shard["bytes"], shard["checksum"])
            check(self.folder / lengths_name(number), shard["lengths_bytes"], shard["lengths_checksum"])


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


def check_size(path: Path, expected: int) -> None:
    """Raise a `UserError` unless the file is there and has `expected` bytes."""
    if not path.is_file():
        raise UserError(f"{path} is missing: {REMEDY}.")
    size = path.stat().st_size
    if size != expected:
        state = "truncated" if size < expected else "longer than what was written"
        raise UserError(f"{path} is {state} ({size:,} bytes, not {expected:,}): {REMEDY}.")


def check_content(path: Path, expected: str) -> None:
    """Raise a `UserError` unless the file's checksum is `expected`."""
    if file_checksum(path) != expected:
        raise UserError(f"{path} is damaged (its checksum does not match the index): {REMEDY}.")

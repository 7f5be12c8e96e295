"""What the tests of the data stage share."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from clm_detour.config.schema import Source
from clm_detour.data.shards import SHARD_TOKENS, ShardWriter, remove_shards, write_index
from clm_detour.data.sources import read_documents

FINGERPRINT = "f" * 64


def write(path: Path, content: bytes | str) -> str:
    """Write a file as its name says it is compressed."""
    data = content.encode() if isinstance(content, str) else content
    if path.name.endswith(".gz"):
        data = gzip.compress(data)
    elif path.name.endswith(".zst"):
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return str(path)


def write_shards(
    folder: Path,
    documents: Iterable[np.ndarray],
    vocab_size: int,
    shard_tokens: int = SHARD_TOKENS,
    dropped: dict[str, int] | None = None,
) -> Path:
    """Write shards of documents, and their index."""
    remove_shards(folder)
    writer = ShardWriter(folder, vocab_size, shard_tokens)
    for ids in documents:
        writer.add(ids)
    head = {"fingerprint": FINGERPRINT, "vocab_size": vocab_size}
    write_index(folder, writer.finish(), head, {"files": []}, dropped or {})
    return folder


def read_all(path: object, **settings: object) -> list[str]:
    """All documents; a bad record is an error."""
    return list(read_documents(Source(path=str(path), **settings)))


def read_rest(path: object, **settings: object) -> tuple[list[str], dict[str, int]]:
    """The documents that can be had, and how many were left out for which reason."""
    counts: Counter[str] = Counter()
    texts = read_documents(Source(path=str(path), **settings), on_error="skip", counts=counts)
    return list(texts), dict(counts)

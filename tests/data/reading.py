"""What the tests of readers share."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pyarrow as pa

from clm_detour.config.schema import Source
from clm_detour.data.sources import read_documents


def write(path: Path, content: bytes | str) -> str:
    """Write a file as its name says it is compressed."""
    data = content.encode() if isinstance(content, str) else content
    if path.name.endswith(".gz"):
        data = gzip.compress(data)
    elif path.name.endswith(".zst"):
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return str(path)


def read_all(path: object, **settings: object) -> list[str]:
    """All documents; a bad record is an error."""
    return list(read_documents(Source(path=str(path), **settings)))


def read_rest(path: object, **settings: object) -> tuple[list[str], dict[str, int]]:
    """The documents that can be had, and how many were left out for which reason."""
    counts: Counter[str] = Counter()
    texts = read_documents(Source(path=str(path), **settings), on_error="skip", counts=counts)
    return list(texts), dict(counts)

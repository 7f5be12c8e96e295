"""What the tests of the data stage share."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from clm_detour.config.schema import Source
from clm_detour.data.objectives import Vocabulary
from clm_detour.data.shards import SHARD_TOKENS, ShardWriter, remove_shards, write_index
from clm_detour.data.sources import read_documents
from clm_detour.data.word_marks import Kind, WordMarks, divisions

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


def with_words(vocabulary: Vocabulary) -> Vocabulary:
    """A vocabulary in which a word is an even id with the odd ids after it, and a special id is a word."""
    ids = np.arange(vocabulary.size)
    first = np.where(vocabulary.is_special, Kind.ALONE, np.where(ids % 2, Kind.INNER, Kind.BEGIN))
    last = np.where(vocabulary.is_special, Kind.ALONE, Kind.LETTER)
    divides, leaves_space = divisions(None)
    none = np.zeros(vocabulary.size, dtype=bool)
    return replace(vocabulary, words=WordMarks(first, last, divides, leaves_space, -1, none))

"""The kinds of files that hold documents: their names, and which of a source's settings each understands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class Format:
    """One kind.

    Args:
        suffixes: by which a file of this kind is known.
        settings: keys of a source that mean something for this kind only.
        fields: what its records always hold, if that is fixed.
    """

    suffixes: tuple[str, ...]
    settings: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


def compressed(suffix: str) -> tuple[str, ...]:
    """A suffix, and with those of compression."""
    return (suffix, *(suffix + compression for compression in COMPRESSIONS))


PUBMED_FIELDS = ("pmid", "title", "abstract", "text", "journal", "year", "language", "publication_types")
FORMATS = {
    "jsonl": Format((*compressed(".jsonl"), ".json.gz")),
    "parquet": Format((".parquet",)),
    "csv": Format(compressed(".csv"), ("quoted",)),
    "tsv": Format(compressed(".tsv"), ("quoted",)),
    "text": Format(compressed(".txt"), ("document",), ("text",)),
    "pubmed": Format(compressed(".xml"), (), PUBMED_FIELDS),
    "arrow": Format((".arrow",), ("split",)),
    "hub": Format((), ("split", "subset", "revision", "streaming")),
}
SUFFIXES = tuple(suffix for kind in FORMATS.values() for suffix in kind.suffixes)


def guess(path: str) -> str | None:
    """The format that a file's name tells."""
    return next((name for name, kind in FORMATS.items() if path.endswith(kind.suffixes)), None)


def compression_of(path: str) -> str | None:
    """Arrow's name for how a file is compressed."""
    return COMPRESSIONS.get(PurePosixPath(path).suffix)


def known_suffixes(formats: Iterable[str] = tuple(FORMATS)) -> str:
    """For a message."""
    return ", ".join(suffix for name in formats for suffix in FORMATS[name].suffixes)

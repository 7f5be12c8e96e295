"""The formats of files with documents: their suffixes, and the settings of a source that each one uses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class Format:
    """The format of a file.

    Args:
        suffixes: Endings of the names of such files.
        settings: Keys of a source that have an effect on this format only, or on few.
        fields: Names of the fields of each record, if they are fixed.
    """

    suffixes: tuple[str, ...]
    settings: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


def compressed(suffix: str) -> tuple[str, ...]:
    """Return a suffix alone and followed by each suffix of compression."""
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
    """Return the format of a file by the end of its name, or None."""
    return next((name for name, kind in FORMATS.items() if path.endswith(kind.suffixes)), None)


def compression_of(path: str) -> str | None:
    """Return Arrow's name of a file's compression, or None."""
    return COMPRESSIONS.get(PurePosixPath(path).suffix)


def known_suffixes(formats: Iterable[str] = tuple(FORMATS)) -> str:
    """Return the suffixes of formats for a message."""
    return ", ".join(suffix for name in formats for suffix in FORMATS[name].suffixes)

"""A reader for each format; a new one is a module with `units` and `records`, and a line here and in `formats.py`."""

from __future__ import annotations

from clm_detour.data.sources import arrow, delimited, hub, jsonl, parquet, pubmed, text
from clm_detour.data.sources.records import Reader

READERS: dict[str, Reader] = {
    "jsonl": jsonl,
    "parquet": parquet,
    "csv": delimited,
    "tsv": delimited,
    "text": text,
    "pubmed": pubmed,
    "arrow": arrow,
    "hub": hub,
}

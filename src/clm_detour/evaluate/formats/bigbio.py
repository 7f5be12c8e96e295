"""Entities in BigBIO's schema `bigbio_kb` (Fries et al., arXiv 2206.15076), as JSON lines or parquet.

Passages and entities have offsets into the document.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_detour.data.sources.records import Record
from clm_detour.evaluate.formats.format import Annotation, Example, Files, Format, Fragments
from clm_detour.evaluate.formats.table import cell, name_of, read_records
from clm_detour.utils.errors import UserError

REMEDY = "get the data set again, in the schema bigbio_kb"


@dataclass(frozen=True)
class BigBio(Format):
    """Files with one document in each record."""

    files: Files = (
        "{split}.jsonl",
        "{split}.parquet",
        "{split}-*.parquet",
        "*/{split}.jsonl",
        "*/{split}-*.parquet",
    )

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """Yield an example for each record."""
        for record in read_records(file):
            text = text_of(record)
            found = [annotation(entity, record.place) for entity in items(record, "entities")]
            yield Example(name_of(record, "document_id"), text, record.place, annotations=tuple(found))


def text_of(record: Record) -> str:
    """Return the passages of a record as one text, each at its offset, with spaces between them."""
    text = ""
    for passage in items(record, "passages"):
        for piece, (start, end) in zip(*pieces(passage, f"{record.place}, a passage"), strict=True):
            if start < len(text) or end - start != len(piece):
                raise UserError(
                    f"{record.place}: the passage at {start} {end} does not fit the text; {REMEDY}."
                )
            text = text.ljust(start) + piece
    return text


def annotation(entity: dict[str, Any], place: str) -> Annotation:
    """Return an entity, which may be in several pieces, as an annotation."""
    place = f"{place}, entity {entity.get('id')}"
    words, offsets = pieces(entity, place)
    kind = entity.get("type")
    if not isinstance(kind, str):
        raise UserError(f"{place} has no type; {REMEDY}.")
    return Annotation(kind, offsets, place, " ".join(words))


def items(record: Record, name: str) -> list[dict[str, Any]]:
    """Return the passages or the entities of a record."""
    found = cell(record, name)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UserError(f"{record.place}: {name} is not a list of objects; {REMEDY}.")
    return found


def pieces(item: dict[str, Any], place: str) -> tuple[list[str], Fragments]:
    """Return the text and the offsets of each piece of a passage or an entity."""
    words, offsets = item.get("text"), item.get("offsets")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise UserError(f"{place} has no text, which must be a list of pieces; {REMEDY}.")
    if not isinstance(offsets, list) or len(offsets) != len(words) or not all(map(is_span, offsets)):
        raise UserError(f"{place} has no offsets, which must be a start and an end for each piece; {REMEDY}.")
    return words, tuple((start, end) for start, end in offsets)


def is_span(value: Any) -> bool:
    """Return whether a value is a list of a start and an end."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(place, int) for place in value)

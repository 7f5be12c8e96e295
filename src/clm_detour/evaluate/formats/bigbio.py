"""Records in BigBIO's schema for entities (`*_bigbio_kb`, Fries et al., arXiv 2206.15076): passages and entities with offsets into the document, as JSON lines or parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_detour.data.sources.records import Record
from clm_detour.evaluate.formats.form import Annotation, Example, Files, Form, Fragments
from clm_detour.evaluate.formats.table import cell, name_of, records
from clm_detour.utils.errors import UserError

REMEDY = "get the data set again, in the schema bigbio_kb"


@dataclass(frozen=True)
class BigBio(Form):
    """A document each record."""

    files: Files = (
        "{split}.jsonl",
        "{split}.parquet",
        "{split}-*.parquet",
        "*/{split}.jsonl",
        "*/{split}-*.parquet",
    )

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """A document each."""
        for record in records(file):
            text = document(record)
            found = [annotation(entity, record.place) for entity in items(record, "entities")]
            yield Example(name_of(record, "document_id"), text, record.place, annotations=tuple(found))


def document(record: Record) -> str:
    """The text of the passages, each at its offset, with spaces between."""
    text = ""
    for passage in items(record, "passages"):
        for piece, (start, end) in zip(*pieces(passage, f"{record.place}, a passage"), strict=True):
            if start < len(text) or end - start != len(piece):
                raise UserError(f"{record.place}: the passage at {start} {end} does not fit the text.")
            text = text.ljust(start) + piece
    return text


def annotation(entity: dict[str, Any], place: str) -> Annotation:
    """An entity, in one or more pieces."""
    place = f"{place}, entity {entity.get('id')}"
    words, offsets = pieces(entity, place)
    kind = entity.get("type")
    if not isinstance(kind, str):
        raise UserError(f"{place} has no type; {REMEDY}.")
    return Annotation(kind, offsets, place, " ".join(words))


def items(record: Record, name: str) -> list[dict[str, Any]]:
    """The passages or entities of a record."""
    found = cell(record, name)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UserError(f"{record.place}: {name} is no list of objects; {REMEDY}.")
    return found


def pieces(item: dict[str, Any], place: str) -> tuple[list[str], Fragments]:
    """The words of a passage or an entity, piece by piece, and where each stands."""
    words, offsets = item.get("text"), item.get("offsets")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise UserError(f"{place} has no text, which is a list of pieces; {REMEDY}.")
    if not isinstance(offsets, list) or len(offsets) != len(words) or not all(map(is_span, offsets)):
        raise UserError(f"{place} has no offsets, which are a start and an end for each piece; {REMEDY}.")
    return words, tuple((start, end) for start, end in offsets)


def is_span(value: Any) -> bool:
    """A start and an end."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(place, int) for place in value)

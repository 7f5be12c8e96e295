"""Records in BigBIO's schema for entities (`*_bigbio_kb`, Fries et al., arXiv 2206.15076): passages and entities with offsets into the document, as JSON lines or parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_detour.data.sources.records import Record
from clm_detour.errors import UserError
from clm_detour.evaluate.formats.form import Annotation, Example, Files, Form
from clm_detour.evaluate.formats.table import cell, records


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
            found = [annotation(entity, record.place) for entity in cell(record, "entities")]
            yield Example(str(cell(record, "document_id")), text, record.place, annotations=tuple(found))


def document(record: Record) -> str:
    """The text of the passages, each at its offset, with spaces between."""
    text = ""
    for passage in cell(record, "passages"):
        for piece, (start, end) in zip(passage["text"], passage["offsets"], strict=True):
            if start < len(text) or end - start != len(piece):
                raise UserError(f"{record.place}: the passage at {start} {end} does not fit the text.")
            text = text.ljust(start) + piece
    return text


def annotation(entity: dict[str, Any], place: str) -> Annotation:
    """An entity, in one or more pieces."""
    fragments = tuple((start, end) for start, end in entity["offsets"])
    return Annotation(entity["type"], fragments, f"{place}, {entity['id']}", " ".join(entity["text"]))

"""Plain text: a document is a file, a line, or a paragraph between blank lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clm_detour.config.expressions.fields import Field
from clm_detour.config.schema import Source
from clm_detour.data.sources.files import whole_file
from clm_detour.data.sources.lines import line_units, place_of, read_lines
from clm_detour.data.sources.records import BadRecord, OnBytes, Record, Unit


def units(file: str, format: str, source: Source) -> list[Unit]:
    """Return ranges of lines if lines are documents, otherwise the file."""
    if source.document == "line":
        return line_units(file, format)
    return [whole_file(file, format)]


def records(
    unit: Unit, source: Source, fields: Sequence[Field] | None, on_bytes: OnBytes
) -> Iterator[Record | BadRecord]:
    """Yield documents that are not blank, as the field `text`, without the line breaks around them."""
    first, block = 1, bytearray()
    for number, line in read_lines(unit, on_bytes):
        blank = not line.strip()
        if source.document == "line" or (source.document == "paragraph" and blank):
            yield from document(unit, first, bytes(block))
            block.clear()
            if blank:
                continue
        if not block:
            first = number
        block += line
    yield from document(unit, first, bytes(block))


def document(unit: Unit, first: int, block: bytes) -> Iterator[Record | BadRecord]:
    """Yield one document, unless it is blank."""
    if not block.strip():
        return
    place = place_of(unit, first)
    try:
        yield Record(place, {"text": block.decode().strip("\r\n")})
    except UnicodeDecodeError as error:
        line = first + block.count(b"\n", 0, error.start)
        column = error.start - block.rfind(b"\n", 0, error.start)
        yield BadRecord("not UTF-8", f"{place_of(unit, line)} is not valid UTF-8 (byte {column} of the line)")

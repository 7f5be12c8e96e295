"""JSON lines: one object on each line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from clm_detour.config.expressions.fields import Field
from clm_detour.config.schema import Source
from clm_detour.data.sources.lines import line_units, place_of, read_lines
from clm_detour.data.sources.records import BadRecord, OnBytes, Record, Unit

ARRAY = re.compile(r"\s*\[\s*\{")
FIRST_OBJECT = 2**20  # bytes; a longer first object is reported as broken


def units(file: str, format: str, source: Source) -> list[Unit]:
    """Return ranges of lines."""
    return line_units(file, format)


def records(
    unit: Unit, source: Source, fields: Sequence[Field] | None, on_bytes: OnBytes
) -> Iterator[Record | BadRecord]:
    """Yield an object for each line that is not blank."""
    first = not unit.start
    for number, line in read_lines(unit, on_bytes):
        if line.strip():
            record = parse(line, place_of(unit, number))
            if first and isinstance(record, BadRecord) and (other := other_json(unit)):
                record = BadRecord(record.reason, other, whole_file=True)
            first = False
            yield record


def other_json(unit: Unit) -> str | None:
    """Return an explanation if a file is JSON, but has not one object on each line; otherwise None."""
    text = first_bytes(unit).decode(errors="replace").lstrip()
    if ARRAY.match(text):
        return f"{unit.file} is one JSON array, but must hold an object a line; jq -c '.[]' writes it so"
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if not text.startswith("{") or "\n" not in text[:end]:
        return None
    return f"{unit.file} has JSON over several lines, but must hold an object a line; jq -c . writes it so"


def first_bytes(unit: Unit) -> bytes:
    """Return the first lines of a file, `FIRST_OBJECT` bytes or a little more."""
    text = bytearray()
    for _, line in read_lines(unit, lambda _: None):
        text += line
        if len(text) >= FIRST_OBJECT:
            break
    return bytes(text)


def parse(line: bytes, place: str) -> Record | BadRecord:
    """Return the record of one line."""
    try:
        record = json.loads(line.rstrip().decode())
    except UnicodeDecodeError as error:
        return BadRecord("not UTF-8", f"{place} is not valid UTF-8 (byte {error.start + 1} of the line)")
    except json.JSONDecodeError as error:
        is_cut = error.msg.startswith("Unterminated string") or error.pos >= len(error.doc)
        cut = "; the line ends before its object does" if is_cut else ""
        return BadRecord("broken JSON", f"{place} is not valid JSON: {error.msg} (column {error.colno}){cut}")
    except (ValueError, RecursionError):
        return BadRecord("broken JSON", f"{place} is not valid JSON: a number too long or brackets too deep")
    if not isinstance(record, dict):
        return BadRecord("not an object", f"{place} is JSON, but not an object with fields")
    return Record(place, record)

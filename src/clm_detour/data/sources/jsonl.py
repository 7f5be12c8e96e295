"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from clm_detour.config.schema import Source
from clm_detour.data.fields import Field
from clm_detour.data.sources.lines import line_units, place_of, read_lines
from clm_detour.data.sources.records import BadRecord, OnBytes, Record, Unit


def units(file: str, format: str, source: Source) -> list[Unit]:
    """Stretches between lines."""
    return line_units(file, format)


def records(
    unit: Unit, source: Source, fields: Sequence[Field] | None, on_bytes: OnBytes
) -> Iterator[Record | BadRecord]:
    """An object for each line that is not blank."""
    for number, line in read_lines(unit, on_bytes):
        if line.strip():
            yield parse(line, place_of(unit, number))


def parse(line: bytes, place: str) -> Record | BadRecord:
    """One line."""
    try:
        record = json.loads(line.rstrip().decode())
    except UnicodeDecodeError as error:
        return BadRecord("not UTF-8", f"{place} is not valid UTF-8 (byte {error.start + 1} of the line)")
    except json.JSONDecodeError as error:
        return BadRecord("broken JSON", f"{place} is not valid JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError):
        return BadRecord("broken JSON", f"{place} is not valid JSON: a number too long or brackets too deep")
    if not isinstance(record, dict):
        return BadRecord("not an object", f"{place} is JSON, but not an object with fields")
    return Record(place, record)

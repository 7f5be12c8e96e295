"""CSV and TSV with a header line. A quoted field can hold line breaks, as in the notes of MIMIC.

All cells are text. A record of the wrong length is one bad record. After a misplaced quote, however, the
start of the next record is unknown, so the rest of the file is lost.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from clm_detour.config.expressions.fields import Field, missing_column
from clm_detour.config.schema import Source
from clm_detour.data.sources.files import whole_file
from clm_detour.data.sources.lines import place_of, read_lines
from clm_detour.data.sources.records import BadRecord, OnBytes, Record, Unit, lost

# Largest number of characters in a cell. The module's default is 131,072, which a note can exceed; without a
# limit, a quote that is never closed would read the rest of the file into memory, at 4 bytes a character.
csv.field_size_limit(2**29)
DELIMITERS = {"csv": ",", "tsv": "\t"}


class DecodedLines:
    """Decoded lines for the `csv` module, with the last problem found in one of them."""

    def __init__(self, unit: Unit, on_bytes: OnBytes):
        self.unit = unit
        self.bad: BadRecord | None = None
        self._lines = read_lines(unit, on_bytes)

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            place = place_of(self.unit, number)
            if b"\0" in line:
                self.bad = BadRecord("NUL character", f"{place} has a NUL character")
                line = line.replace(b"\0", b"")
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                self.bad = BadRecord(
                    "not UTF-8", f"{place} is not valid UTF-8 (byte {error.start + 1} of the line)"
                )
                yield line.decode(errors="replace")

    def problem(self) -> BadRecord | None:
        """Return the problem of a line since the last call, or None."""
        bad, self.bad = self.bad, None
        return bad


def units(file: str, format: str, source: Source) -> list[Unit]:
    """Return the file as one unit: only reading it from its start shows which line breaks end a record."""
    return [whole_file(file, format)]


def records(
    unit: Unit, source: Source, fields: Sequence[Field] | None, on_bytes: OnBytes
) -> Iterator[Record | BadRecord]:
    """Yield a record for each row, by the names in the header."""
    lines = DecodedLines(unit, on_bytes)
    rows = csv.reader(
        lines,
        delimiter=DELIMITERS[unit.format],
        quoting=csv.QUOTE_MINIMAL if source.quoted else csv.QUOTE_NONE,
        strict=True,
    )
    header: list[str] | None = None
    while True:
        place = place_of(unit, rows.line_num + 1)
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            hint = "" if not source.quoted else "; if quotes are ordinary characters here, set quoted: false"
            raise lost(
                f"{place} begins a record that cannot be read as {unit.format.upper()} ({error}){hint}"
            ) from None
        problem = lines.problem()
        if header is None:
            if problem:
                raise lost(str(problem))
            check_header(place, row, fields)
            header = row
        elif problem:
            yield problem
        elif len(row) == len(header):
            yield Record(place, dict(zip(header, row, strict=True)))
        elif row:
            yield BadRecord("wrong number of cells", f"{place} has {len(row)} cells, not {len(header)}")


def check_header(place: str, header: list[str], fields: Sequence[Field] | None) -> None:
    """Check that the columns have distinct names, and that the needed ones are there.

    Raises:
        BadRecord: If they have not.
    """
    if len(set(header)) < len(header):
        raise BadRecord("columns of one name", f"{place} names two columns alike")
    for field in fields or ():
        if not field.optional and field.column(header) is None:
            raise BadRecord("no such field", place + missing_column(field.name, header))

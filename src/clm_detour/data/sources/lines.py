"""The lines of a file, compressed or not. A long file that is not compressed is divided between lines."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from clm_detour.config.expressions.formats import compression_of
from clm_detour.data.sources.files import file_stamp, open_raw, unpacked
from clm_detour.data.sources.records import UNIT_BYTES, BadRecord, OnBytes, Unit, lost

LINES_BETWEEN_REPORTS = 256
LONG_LINE = 2**17  # bytes; after a longer one, too, the bytes read are reported
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def line_units(file: str, format: str) -> list[Unit]:
    """Return ranges of about UNIT_BYTES; a compressed file is one unit."""
    size = file_stamp(file)["size"]
    if compression_of(file) or size < 2 * UNIT_BYTES:
        return [Unit(file, format, size)]
    cuts = [size * number // (size // UNIT_BYTES) for number in range(size // UNIT_BYTES + 1)]
    return [Unit(file, format, end - start, start, end) for start, end in pairwise(cuts)]


def place_of(unit: Unit, number: int) -> str:
    """Return the name of a line of a unit in messages."""
    counted_from = f" after byte {unit.start}" if unit.start else ""
    return f"{unit.file} line {number}{counted_from}"


def read_lines(unit: Unit, on_bytes: OnBytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that begin in a unit, with numbers from 1 and line ends, without byte order mark.

    Raises:
        BadRecord: If the file is damaged from here on, or in UTF-16.
    """
    number = reported = 0
    try:
        with open_raw(unit.file) as raw:
            if unit.start:
                raw.seek(unit.start - 1)
            lines = unpacked(raw, unit.file)
            # The line that begins before the unit belongs to the unit before.
            position = unit.start - 1 + len(lines.readline()) if unit.start else 0
            while (unit.end is None or position < unit.end) and (line := lines.readline()):
                number += 1
                if position == 0 and line.startswith(UTF_16):
                    raise BadRecord(
                        "not UTF-8", f"{unit.file} is in UTF-16, but must be in UTF-8; save it so", True
                    )
                position += len(line)
                yield number, line.removeprefix(BYTE_ORDER_MARK) if position == len(line) else line
                if number % LINES_BETWEEN_REPORTS == 0 or len(line) > LONG_LINE:
                    done = raw.tell() if unit.end is None else min(position, unit.end) - unit.start
                    on_bytes(done - reported)
                    reported = done
    except OSError as error:
        raise lost(f"{unit.file} is damaged after line {number} ({error})") from error
    on_bytes(unit.size - reported)

"""The types that readers produce: units of a source, records, and records that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from clm_detour.config.expressions.fields import Field
from clm_detour.config.schema import Source

OnBytes = Callable[[int], None]
UNIT_BYTES = 2**26  # a file whose parts can be read apart is divided into about this much


@dataclass(frozen=True)
class Unit:
    """A part of a source that can be read separately, in any process: a file, or a range of one.

    Args:
        file: Name as `list_files` returns it, or the hub id.
        size: Size in bytes, as far as it is known.
        start, end: Range of bytes of lines, of row groups of parquet, of shards or rows of a hub dataset;
            None for all.
        before: Number of records of the file before the unit, if known.
    """

    file: str
    format: str
    size: int
    start: int = 0
    end: int | None = None
    before: int = 0


class Record(NamedTuple):
    """Fields, and the place for messages."""

    place: str
    fields: dict[str, Any]


class BadRecord(Exception):
    """A record that cannot be read: `reason` is the name under which it is counted; the message names the
    place.

    A reader yields it and continues, or raises it if the rest of its unit is lost.

    Args:
        whole_file: Whether the whole file is bad, so that none of its records can be read.
    """

    def __init__(self, reason: str, message: str, whole_file: bool = False):
        super().__init__(message)
        self.reason, self.whole_file = reason, whole_file


class Reader(Protocol):
    """A module that reads one format."""

    def units(self, file: str, format: str, source: Source) -> list[Unit]:
        """Return a file's parts in their order."""

    def records(
        self, unit: Unit, source: Source, fields: Sequence[Field] | None, on_bytes: OnBytes
    ) -> Iterator[Record | BadRecord]:
        """Yield the records of a unit with at least these fields; None for all of them."""


def lost(message: str) -> BadRecord:
    """Return the BadRecord for the rest of a damaged file."""
    return BadRecord("rest of a damaged file", message)

"""What readers deal in: units of a source, records, and records that cannot be read."""

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
    """A part of a source that is read on its own, in any process: a file, or a stretch of one.

    Args:
        file: as `list_files` gives it, or the hub id.
        size: its bytes, as far as they are known.
        start, end: bytes of lines, row groups of parquet, shards or rows of a hub's dataset; None for all.
        before: how many records of the file come before it, where that is known.
    """

    file: str
    format: str
    size: int
    start: int = 0
    end: int | None = None
    before: int = 0


class Record(NamedTuple):
    """Fields, and the place that a message names."""

    place: str
    fields: dict[str, Any]


class BadRecord(Exception):
    """Something that cannot be read: `reason` is what it is counted as, the message says where it is.

    A reader yields it and goes on, or raises it where the rest of its unit is lost.

    Args:
        whole_file: Whether it is the file that is at fault, so that none of its records can be read.
    """

    def __init__(self, reason: str, message: str, whole_file: bool = False):
        super().__init__(message)
        self.reason, self.whole_file = reason, whole_file


class Reader(Protocol):
    """A module for one kind of file."""

    def units(self, file: str, format: str, source: Source) -> list[Unit]:
        """A file's parts in their order."""

    def records(
        self, unit: Unit, source: Source, fields: Sequence[Field] | None, on_bytes: OnBytes
    ) -> Iterator[Record | BadRecord]:
        """The records of a unit with at least these fields; None for all of them."""


def lost(message: str) -> BadRecord:
    """The end of what can be read of a file."""
    return BadRecord("rest of a damaged file", message)

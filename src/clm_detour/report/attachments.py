"""What goes beside the page: every figure and table that is made while `gathered` is open, in the order of display."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clm_detour.report.wording import MINUS, NARROW

if TYPE_CHECKING:
    from clm_detour.report.plots import Drawing


Value = str | float | None


@dataclass(frozen=True)
class Sheet:
    """A table as plain values, the names of its columns first."""

    caption: str
    rows: list[list[Value]]

    @property
    def name(self) -> str:
        """For its file."""
        return re.sub(r"[^a-z0-9]+", "-", self.caption.lower()).strip("-")

    def csv(self) -> str:
        """Numbers unrounded, an empty cell for what was not measured; in words thin spaces made plain ones, minus signs hyphens."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([plain(value) for value in row] for row in self.rows)
        return out.getvalue()


def plain(value: Value) -> str | float:
    """Return a value as CSV has it."""
    if isinstance(value, str):
        return value.replace(NARROW, " ").replace(MINUS, "-")
    return "" if value is None or not math.isfinite(value) else value


Attachments = list["Drawing | Sheet"]
OPEN: ContextVar[Attachments | None] = ContextVar("attachments", default=None)


@contextmanager
def gathered() -> Iterator[Attachments]:
    """Collect what is attached inside the block."""
    found: Attachments = []
    token = OPEN.set(found)
    try:
        yield found
    finally:
        OPEN.reset(token)


def attach(item: Drawing | Sheet) -> None:
    """Keep a figure or table, if anybody asks for them."""
    found = OPEN.get()
    if found is not None:
        found.append(item)

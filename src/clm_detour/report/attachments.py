"""What goes beside the page: every figure and table that is made while `gathered` is open, in the order of display."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clm_detour.report.wording import MINUS, NARROW

if TYPE_CHECKING:
    from clm_detour.report.plots import Drawing


@dataclass(frozen=True)
class Sheet:
    """A table as it reads on the page."""

    caption: str
    rows: list[list[str]]

    @property
    def name(self) -> str:
        """For its file."""
        return re.sub(r"[^a-z0-9]+", "-", self.caption.lower()).strip("-")

    def csv(self) -> str:
        """Thin spaces made plain ones, minus signs hyphens."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([cell.replace(NARROW, " ").replace(MINUS, "-") for cell in row] for row in self.rows)
        return out.getvalue()


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

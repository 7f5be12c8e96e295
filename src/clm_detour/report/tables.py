"""Tables: cells under named columns, in a box of their own that scrolls where the page is narrow, and the same as CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from clm_detour.report.markup import render
from clm_detour.report.plots import Sheet, Value, attach
from clm_detour.report.wording import ABSENT

Text = str | Markup
UNSEEN = r'<span class="unseen">.*?</span>'


@dataclass(frozen=True)
class Cell:
    """What the page shows, and the plain values that the CSV file has in its place.

    Args:
        values: what is added to the column's name -> value, a column of the file each. None where it was not measured.
    """

    text: Text
    values: Mapping[str, Value]


Content = Text | Cell


@dataclass(frozen=True)
class Row:
    """One row: its name, then its values; `kind` is its class ("rest" sets it apart below the others)."""

    cells: Sequence[Content]
    kind: str = ""


def number(value: float | None, write: Callable[..., str], unit: str = "") -> Cell:
    """Return the cell of one number: as `write` puts it, or a dash where it was not measured.

    Args:
        unit: of the value in the CSV file, where its column's name does not tell.
    """
    return Cell(ABSENT if value is None else write(value), {unit: value})


def table(
    caption: str, head: Sequence[Text], rows: Sequence[Row], left: Collection[int] = (), note: str = ""
) -> Markup:
    """A table.

    Args:
        left: columns of words, set flush left; the first always is.
    """
    attach(Sheet(caption, sheet_rows(head, rows)))
    texts = [Row([shown(cell) for cell in row.cells], row.kind) for row in rows]
    return render("table.html", caption=caption, head=head, rows=texts, left={0, *left}, note=note)


def shown(cell: Content) -> Text:
    """Return what the page shows."""
    return cell.text if isinstance(cell, Cell) else cell


def sheet_rows(head: Sequence[Text], rows: Sequence[Row]) -> list[list[Value]]:
    """Return the lines of the CSV file: a column for each value that the cells of a column have."""
    lines: list[list[Value]] = [[] for _ in range(len(rows) + 1)]
    for place, name in enumerate(head):
        column = [values_of(row.cells[place]) for row in rows]
        for kind in dict.fromkeys(kind for values in column for kind in values):
            entries = [f"{words(name)} {kind}".strip(), *(values.get(kind) for values in column)]
            for line, entry in zip(lines, entries, strict=True):
                line.append(entry)
    return lines


def values_of(cell: Content) -> Mapping[str, Value]:
    """Return the plain values of a cell; what it says, if it is words, and None for a dash."""
    if isinstance(cell, Cell):
        return cell.values
    said = words(cell)
    return {"": None if said == ABSENT else said}


def words(cell: Text) -> str:
    """What a cell says, without its mark-up and without what only listeners are told."""
    return Markup(re.sub(UNSEEN, "", cell)).striptags() if isinstance(cell, Markup) else cell


def with_best(values: Sequence[float | None], write: Callable[[float], str], lowest: bool) -> list[Cell]:
    """A column's cells with the best marked: lowest or highest, and whatever reads the same in print.

    Args:
        values: None where nothing was measured; what is not finite is never best.
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    best = write(min(finite) if lowest else max(finite)) if len(finite) > 1 else None
    cells = [number(value, write) for value in values]
    return [Cell(mark_best(cell.text), cell.values) if cell.text == best else cell for cell in cells]


def mark_best(text: str) -> Markup:
    """Bold, and said to those who listen."""
    return Markup('<strong class="best">{}<span class="unseen"> (best)</span></strong>').format(text)

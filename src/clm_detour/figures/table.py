"""A table: one type for the report, the model card, evaluations, analyses and the terminal.

`figures.renderers` writes it as HTML, Markdown, LaTeX, CSV, plain text and for rich.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from clm_detour.figures.wording import ABSENT

Text = str | Markup
Value = str | float | None


@dataclass(frozen=True)
class Cell:
    """The text that a reader sees, and the plain values that a CSV file has in its place.

    Args:
        text: A number and its spread are separated by ` ± `.
        values: The values by what is added to the column's name in a CSV file; None where nothing was
            measured.
        best: Whether the cell is marked as the best of its column or row.
    """

    text: Text
    values: Mapping[str, Value] = field(default_factory=dict)
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A row of cells, the first of which is its name; rows of another `kind` are set apart."""

    cells: Sequence[Text | Cell]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Named columns, rows of cells, and sentences about them.

    Args:
        left: Indices of columns of words, which are aligned left; the first column always is.
        notes: Sentences that stand with the table.
    """

    caption: str
    head: Sequence[Text]
    rows: Sequence[Row]
    left: Collection[int] = ()
    notes: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The caption as the name of a file."""
        return re.sub(r"[^a-z0-9]+", "-", self.caption.lower()).strip("-")


def cell_of(content: Text | Cell) -> Cell:
    """Return a cell; that of words has the words as its value, and None for a dash."""
    if isinstance(content, Cell):
        return content
    words = words_of(content)
    return Cell(content, {"": None if words == ABSENT else words})


def words_of(text: Text) -> str:
    """Return the words of a text without markup and without what only screen readers say."""
    if not isinstance(text, Markup):
        return text
    return Markup(re.sub(r'<span class="unseen">.*?</span>', "", text)).striptags()


def number(value: float | None, write: Callable[..., Text], unit: str = "") -> Cell:
    """Return the cell of one number.

    Args:
        value: The number, or None where it was not measured, which is shown as a dash.
        write: Returns the text of a number.
        unit: Unit of the value in a CSV file, where the column's name does not tell it.
    """
    return Cell(ABSENT if value is None else write(value), {unit: value})


def with_best(values: Sequence[float | None], write: Callable[[float], str], lowest: bool) -> list[Cell]:
    """Return cells of which the best is marked, and every other whose text is the same.

    Args:
        values: None where nothing was measured; values that are not finite are never the best.
        write: Returns the text of a number.
        lowest: Whether the lowest value is the best, instead of the highest.
    """
    measured = [value for value in values if value is not None and math.isfinite(value)]
    best = write(min(measured) if lowest else max(measured)) if len(measured) > 1 else None
    cells = [number(value, write) for value in values]
    return [replace(cell, best=True) if cell.text == best else cell for cell in cells]


def with_spread(cell: Cell, std: float | None, interval: tuple[float, float] | None) -> Cell:
    """Return a cell of a mean with its standard deviation; a CSV file has the interval, too."""
    low, high = interval or (None, None)
    spread = "" if std is None else f" ± {std:.1f}"
    return replace(
        cell, text=cell.text + spread, values={**cell.values, "std": std, "low": low, "high": high}
    )


def csv_rows(table: Table) -> list[list[Value]]:
    """Return the head and the rows of a CSV file: a column for each value that the cells of a column have."""
    lines: list[list[Value]] = [[] for _ in range(len(table.rows) + 1)]
    for place, name in enumerate(table.head):
        column = [cell_of(row.cells[place]).values for row in table.rows]
        for kind in dict.fromkeys(kind for values in column for kind in values):
            entries = [f"{words_of(name)} {kind}".strip(), *(values.get(kind) for values in column)]
            for line, entry in zip(lines, entries, strict=True):
                line.append(entry)
    return lines

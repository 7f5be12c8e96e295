"""Tables as HTML, Markdown, LaTeX, CSV and plain text, and for rich."""

from __future__ import annotations

import csv
import io
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import rich.console
import rich.table
import rich.text
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from clm_detour.figures.table import Cell, Table, Text, Value, cell_of, csv_rows, words_of
from clm_detour.figures.wording import MINUS, NARROW

SPREAD = " ± "


@cache
def html_templates(folder: Path) -> Environment:
    """Return the templates of a folder and of this one; they escape whatever is no markup yet."""
    return Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def html(table: Table) -> Markup:
    """Return the table in a box of its own, which scrolls where the page is narrow."""
    template = html_templates(Path(__file__).parent).get_template("table.html")
    rows = [(row.kind, [html_cell(cell_of(cell)) for cell in row.cells]) for row in table.rows]
    return Markup(
        template.render(
            caption=table.caption,
            head=table.head,
            rows=rows,
            left={0, *table.left},
            note=" ".join(table.notes),
        )
    )


def html_cell(cell: Cell) -> Text:
    """Return the text of a cell; the best is bold, and screen readers say so."""
    if not cell.best:
        return cell.text
    mean, spread = split_spread(cell)
    return Markup('<strong class="best">{}<span class="unseen"> (best)</span></strong>{}').format(
        mean, f"{SPREAD}{spread}" if spread else ""
    )


def split_spread(cell: Cell) -> tuple[str, str]:
    """Return the number and its spread, as words."""
    mean, _, spread = words_of(cell.text).partition(SPREAD)
    return mean, spread


def markdown(table: Table) -> str:
    """Return the table with the best in bold, and the notes as a list below."""
    head = [*map(words_of, table.head)]
    lines = [f"| {markdown_cells(head)} |", "|---" * len(head) + "|"]
    for row in table.rows:
        cells = map(cell_of, row.cells)
        texts = [f"**{cell.text}**" if cell.best else words_of(cell.text) for cell in cells]
        lines.append(f"| {markdown_cells(texts)} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]) + "\n"


def markdown_cells(texts: Iterable[str]) -> str:
    """Return the inside of a row; line breaks and bars in a text, which would end its cell, are replaced."""
    return " | ".join(" ".join(str(text).split()).replace("|", "\\|") for text in texts)


def latex(table: Table) -> str:
    r"""Return a `tabular` with the rules of booktabs; spreads as `81.0{\tiny$\pm$0.4}`."""
    lines = [rf"\begin{{tabular}}{{l{'c' * (len(table.head) - 1)}}}", r"\toprule"]
    lines.append(" & ".join(latex_escaped(words_of(name)) for name in table.head) + r" \\")
    kind = None
    for row in table.rows:
        if row.kind != kind:
            lines.append(r"\midrule")
        kind = row.kind
        lines.append(" & ".join(latex_cell(cell_of(cell)) for cell in row.cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def latex_cell(cell: Cell) -> str:
    """Return the text of a cell for LaTeX."""
    mean, spread = split_spread(cell)
    text = latex_escaped(mean)
    return (rf"\textbf{{{text}}}" if cell.best else text) + (rf"{{\tiny$\pm${spread}}}" if spread else "")


def latex_escaped(text: str) -> str:
    """Return a text whose special characters are escaped."""
    return re.sub(r"([&%$#_{}])", r"\\\1", text)


def plain(table: Table, width: int | None = None, bold: bool = False) -> rich.text.Text:
    """Return the table in aligned columns, with the notes below.

    Args:
        width: Largest width. Columns that do not fit follow below, with the first column repeated.
        bold: Show the best in bold instead of in brackets.
    """
    names = [words_of(cell_of(row.cells[0]).text) for row in table.rows]
    first = aligned([rich.text.Text(each) for each in (words_of(table.head[0]), *names)], "left")
    columns = []
    for place, name in enumerate(table.head[1:], 1):
        cells = [plain_cell(cell_of(row.cells[place]), bold) for row in table.rows]
        head = rich.text.Text(words_of(name) + ("" if bold else " "))
        columns.append(aligned([head, *cells], "right"))
    blocks = [[first]]
    for column in columns:
        taken = sum(len(each[0]) + 2 for each in [*blocks[-1], column])
        if width is not None and taken > width and len(blocks[-1]) > 1:
            blocks.append([first])
        blocks[-1].append(column)
    lines = []
    for block in blocks:
        lines += [rich.text.Text("  ").join(texts) for texts in zip(*block, strict=True)] + [rich.text.Text()]
    for line in lines:
        line.rstrip()
    best = any(cell_of(cell).best for row in table.rows for cell in row.cells)
    notes = [f"{'In bold' if bold else 'In brackets'}: the best.", *table.notes] if best else table.notes
    below = [rich.text.Text(line) for note in notes for line in wrapped(note, width)]
    return rich.text.Text("\n").join([*lines[:-1], *below])


def plain_cell(cell: Cell, bold: bool) -> rich.text.Text:
    """Return a cell for a table in plain text."""
    text = words_of(cell.text)
    if bold:
        return rich.text.Text(text, "bold" if cell.best else "")
    return rich.text.Text(f"[{text}]" if cell.best else f"{text} ")


def aligned(column: Sequence[rich.text.Text], side: Literal["left", "right"]) -> Sequence[rich.text.Text]:
    """Return the texts of a column, padded to one width."""
    width = max(map(len, column))
    for text in column:
        text.align(side, width)
    return column


def wrapped(note: str, width: int | None) -> list[str]:
    """Return the lines of a note."""
    return [note] if width is None else textwrap.wrap(note, width, break_on_hyphens=False)


def print_table(table: Table, console: rich.console.Console) -> None:
    """Print a table: within the width of a terminal with the best in bold, or as plain text in a log."""
    live = console.is_terminal and not console.is_dumb_terminal
    console.print(plain(table, console.width if live else None, bold=live), soft_wrap=True)


def rich_table(table: Table) -> rich.table.Table:
    """Return the table for rich's console, with the best in bold."""
    made = rich.table.Table(title=table.caption)
    for place, name in enumerate(table.head):
        made.add_column(words_of(name), justify="left" if place in {0, *table.left} else "right")
    for row in table.rows:
        made.add_row(*(plain_cell(cell_of(cell), bold=True) for cell in row.cells))
    return made


def csv_text(table: Table) -> str:
    """Return the table's plain values as CSV: numbers unrounded, empty cells for what was not measured."""
    return csv_lines(csv_rows(table))


def csv_lines(rows: Iterable[Sequence[Value]]) -> str:
    """Return rows of plain values as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([csv_value(value) for value in row] for row in rows)
    return out.getvalue()


def csv_value(value: Value) -> str | float:
    """Return a value for CSV: empty for no number, and words with plain spaces and hyphens."""
    if isinstance(value, str):
        return value.replace(NARROW, " ").replace(MINUS, "-")
    return "" if value is None or not math.isfinite(value) else value

"""Tables as HTML, Markdown, LaTeX, CSV and plain text, and for rich."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import rich.table
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from clm_detour.figures.table import Cell, Table, Text, Value, cell_of, csv_rows, words_of
from clm_detour.figures.wording import MINUS, NARROW

SPREAD = " ± "


@cache
def html_templates(folder: Path) -> Environment:
    """Return the templates of a folder; they escape whatever is no markup yet."""
    return Environment(
        loader=FileSystemLoader(folder),
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


def plain(table: Table) -> str:
    """Return the table in columns of one width, the best marked with a star, and the notes below."""
    lines = [[*map(words_of, table.head)]]
    for row in table.rows:
        name, *cells = map(cell_of, row.cells)
        lines.append([words_of(name.text), *(words_of(c.text) + ("*" if c.best else " ") for c in cells)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = []
    for first, *others in lines:
        aligned = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        texts.append("  ".join([first.ljust(widths[0]), *aligned]))
    return "\n".join([*(text.rstrip() for text in texts), *table.notes])


def rich_table(table: Table) -> rich.table.Table:
    """Return the table for rich's console."""
    made = rich.table.Table(title=table.caption)
    for place, name in enumerate(table.head):
        made.add_column(words_of(name), justify="left" if place in {0, *table.left} else "right")
    for row in table.rows:
        made.add_row(*(words_of(cell_of(cell).text) for cell in row.cells))
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

"""Tables: rows of texts under named columns, in a box of their own that scrolls where the page is narrow."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from clm_detour.report.attachments import Sheet, attach
from clm_detour.report.markup import render

Text = str | Markup
UNSEEN = r'<span class="unseen">.*?</span>'


@dataclass(frozen=True)
class Row:
    """One row: its name, then its values; `kind` is its class ("rest" sets it apart below the others)."""

    cells: Sequence[Text]
    kind: str = ""


def table(
    caption: str, head: Sequence[Text], rows: Sequence[Row], left: Collection[int] = (), note: str = ""
) -> Markup:
    """A table.

    Args:
        left: columns of words, set flush left; the first always is.
    """
    lines = [list(map(words, line)) for line in (head, *(row.cells for row in rows))]
    attach(Sheet(caption, lines))
    return render("table.html", caption=caption, head=head, rows=rows, left={0, *left}, note=note)


def words(cell: Text) -> str:
    """What a cell says, without its mark-up and without what only listeners are told."""
    return Markup(re.sub(UNSEEN, "", cell)).striptags() if isinstance(cell, Markup) else cell


def with_best(
    values: Sequence[float | None], write: Callable[[float], str], lowest: bool, absent: str
) -> list[Text]:
    """A column's cells with the best marked: lowest or highest, and whatever reads the same in print.

    Args:
        values: None where nothing was measured; what is not finite is never best.
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    best = write(min(finite) if lowest else max(finite)) if len(finite) > 1 else None
    texts = [absent if value is None else write(value) for value in values]
    return [mark_best(text) if text == best else text for text in texts]


def mark_best(text: str) -> Markup:
    """Bold, and said to those who listen."""
    return Markup('<strong class="best">{}<span class="unseen"> (best)</span></strong>').format(text)

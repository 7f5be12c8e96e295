"""The building blocks of the page. Text that goes into a template is escaped, unless it is markup already.

The tables and figures of a page are also written as files: `collected` gathers what is made inside a block.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from markupsafe import Markup

from clm_detour.figures.figure import Chart, Figure
from clm_detour.figures.renderers import html, html_templates
from clm_detour.figures.table import Row, Table, Text

Collected = list[Figure | Table]
COLLECTING: ContextVar[Collected | None] = ContextVar("collecting", default=None)


class Drawn(Protocol):
    """Something that draws a chart."""

    def draw(self) -> Chart:
        """Return the chart."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; `folded` until a reader opens it."""

    anchor: str
    title: str
    body: Markup
    folded: bool = False


@contextmanager
def collected() -> Iterator[Collected]:
    """Collect the tables and figures that are made inside the block."""
    found: Collected = []
    token = COLLECTING.set(found)
    try:
        yield found
    finally:
        COLLECTING.reset(token)


def collect(item: Figure | Table) -> None:
    """Keep a table or figure if a block collects them."""
    found = COLLECTING.get()
    if found is not None:
        found.append(item)


def render(template: str, **values: Any) -> Markup:
    """Return the text of a template of this folder."""
    return Markup(html_templates(Path(__file__).parent).get_template(template).render(**values))


def join(*parts: Markup | None) -> Markup:
    """Return blocks one below the other, without those that are None."""
    return Markup("\n").join(part for part in parts if part)


def paragraph(text: Text, kind: str = "") -> Markup:
    """Return a paragraph; `kind` is its class."""
    opening = Markup('<p class="{}">').format(kind) if kind else Markup("<p>")
    return opening + Markup("{}</p>").format(text)


def heading(text: str) -> Markup:
    """Return a heading inside a section."""
    return Markup("<h3>{}</h3>").format(text)


def key(slot: str, name: str) -> Markup:
    """Return a name with its color."""
    return Markup('<span class="key {}"></span>{}').format(slot, name)


def table(
    caption: str, head: Sequence[Text], rows: Sequence[Row], left: Collection[int] = (), note: str = ""
) -> Markup:
    """Return a table; see `figures.table.Table`."""
    made = Table(caption, head, rows, left, [note] if note else [])
    collect(made)
    return html(made)


def figure(name: str, chart: Drawn, label: str, title: str, caption: Text = "") -> Markup:
    """Return a chart under its title.

    Args:
        name: See `figures.figure.Figure`.
        label: What the chart shows, for those who do not see it.
    """
    made = Figure(name, chart.draw())
    collect(made)
    return render("figure.html", chart=made.inline(label), title=title, caption=caption)


def folded(summary: str, *parts: Markup | None) -> Markup | None:
    """Return blocks that are hidden until a reader opens them; None if there are none."""
    body = join(*parts)
    opening = Markup('<details class="more"><summary>{}</summary>').format(summary)
    return Markup("\n").join([opening, body, Markup("</details>")]) if body else None


def sortable(made: Markup) -> Markup:
    """Return a table that a click on a heading sorts."""
    return Markup('<div class="sortable">{}</div>').format(made)


def side_by_side(*figures: Markup) -> Markup:
    """Return figures in a row where there is room, else one below the other."""
    return Markup('<div class="figures">{}</div>').format(join(*figures))

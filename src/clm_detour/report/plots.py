"""Figures: inline SVG for the page, and the same as PNG and SVG files; the same bytes for the same data, text as text.

Matplotlib knows no CSS, so what stands on the page is drawn in stand-in colours that are exchanged in the end for the page's variables,
right in light, dark and print. Files have the colours of the light page, and the names of what has a colour, which the page says around a figure.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import matplotlib.colors
import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from clm_detour.report.wording import MINUS, NARROW

INK, FAINT, PAPER = "page ink", "page line", "page paper"
COLOURS = {slot: f"page {slot}" for slot in ("base", "detour", "twin", "other-1", "other-2", "other-3")}
MARKERS = {"base": "o", "detour": "D", "twin": "s", "other-1": "o", "other-2": "o", "other-3": "o"}
STAND_INS = {
    INK: "#100001", FAINT: "#100002", PAPER: "#100003",
    **{name: f"#20000{place}" for place, name in enumerate(COLOURS.values(), start=1)},
}  # fmt: skip
ON_PAGE = {
    INK: "currentColor", FAINT: "var(--line)", PAPER: "var(--paper)",
    **{name: f"var(--{slot})" for slot, name in COLOURS.items()},
}  # fmt: skip
LIGHT = [
    "#23211e",
    "#dcd7ce",
    "#ffffff",
    "#7b7f87",
    "#c2500f",
    "#2468ad",
    "#3b7d4a",
    "#7d4fb0",
    "#94701a",
]  # of page.css
IN_FILES = dict(zip(STAND_INS, LIGHT, strict=True))
matplotlib.colors.get_named_colors_mapping().update(STAND_INS)

WIDTH = 4.4  # inches of 72 units: on a phone one unit is about one pixel
DPI = 200
NAME_INCHES, LETTERS = 0.25, 52  # height of a line of names above a file's panel, and what fits into it
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "clm-detour", "font.size": 10, "text.parse_math": False,
    "text.color": INK, "axes.labelcolor": INK, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.edgecolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT, "grid.color": FAINT,
    "axes.grid": True, "grid.linewidth": 0.5, "axes.axisbelow": True, "axes.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "xtick.major.size": 0, "ytick.major.size": 0, "lines.solid_capstyle": "round",
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip

UNDATED = {"svg": dict.fromkeys(("Date", "Creator", "Format", "Type")), "png": {"Software": None}}


@dataclass(frozen=True)
class Drawing:
    """One panel, ready to be written; `height` in inches, `names` of what has a colour, with its slot in COLOURS."""

    name: str
    height: float
    paint: Callable[[Axes], None]
    names: Mapping[str, str]

    def svg(self) -> str:
        """A file of its own."""
        with colours(IN_FILES):
            return rendered(self.height, self.paint, self.names, format="svg").decode()

    def png(self) -> bytes:
        """The same in pixels."""
        with colours(IN_FILES):
            paper = IN_FILES[PAPER]
            return rendered(self.height, self.paint, self.names, format="png", dpi=DPI, facecolor=paper)


def draw(
    name: str,
    label: str,
    height: float,
    paint: Callable[[Axes], None],
    names: Mapping[str, str] = MappingProxyType({}),
) -> Markup:
    """One panel.

    Args:
        name: makes the ids in the drawing unique on the page, and names the files.
        label: what the figure shows, for those who do not see it.
        height: inches.
        names: of what has a colour, with its slot in COLOURS; files show them, the page says them itself.
    """
    attach(Drawing(name, height, paint, names))
    return inline(rendered(height, paint, {}, format="svg").decode(), name, label)


def rendered(
    height: float, paint: Callable[[Axes], None], names: Mapping[str, str], format: str, **options: Any
) -> bytes:
    """A panel in the page's style, under a line of names, saved with `options`."""
    buffer = io.BytesIO()
    columns = max(1, LETTERS // (max(map(len, names), default=0) + 4))
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure((WIDTH, height + NAME_INCHES * -(-len(names) // columns)), layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure.add_subplot())
        if names:
            marks = [mark(*item) for item in names.items()]
            figure.legend(
                handles=marks, loc="outside upper left", ncols=columns, frameon=False, handletextpad=0.1
            )
        figure.savefig(buffer, format=format, metadata=UNDATED[format], **options)
    return buffer.getvalue()


def mark(name: str, slot: str) -> Line2D:
    """As beside the names on the page."""
    return Line2D([], [], linestyle="", marker=MARKERS[slot], color=COLOURS[slot], label=name)


@contextmanager
def colours(values: Mapping[str, str]) -> Iterator[None]:
    """Draw in other colours than the stand-ins."""
    name_colours(values)
    try:
        yield
    finally:
        name_colours(STAND_INS)


def name_colours(values: Mapping[str, str]) -> None:
    """One by one: matplotlib forgets what a name meant before only when a single one is set."""
    names = matplotlib.colors.get_named_colors_mapping()
    for name, value in values.items():
        names[name] = value


def inline(svg: str, name: str, label: str) -> Markup:
    """A drawing that can stand inside HTML: no prologue, no addresses, ids of its own, the page's colours."""
    drawing = svg[svg.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    view_box = re.search(r'viewBox="([^"]*)"', drawing)
    assert view_box, "matplotlib writes a viewBox"
    drawing = drawing[drawing.index(">") + 1 :]
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", drawing)
    for colour, stand_in in STAND_INS.items():
        drawing = drawing.replace(stand_in, ON_PAGE[colour])
    opening = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(view_box[1], label)
    return opening + Markup(re.sub(r"\n\s*\n", "\n", drawing).strip())


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

"""Figures: inline SVG for the page, and the same as PNG and SVG files; the same bytes for the same data, text as text.

Matplotlib knows no CSS, so everything is drawn in stand-in colours that are exchanged in the end: for the page's variables,
right in light, dark and print, or, in files, for those of the light page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.colors
import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clm_detour.report.attachments import attach

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
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "clm-detour", "font.size": 10, "text.parse_math": False,
    "text.color": INK, "axes.labelcolor": INK, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.edgecolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT, "grid.color": FAINT,
    "axes.grid": True, "grid.linewidth": 0.5, "axes.axisbelow": True, "axes.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "xtick.major.size": 0, "ytick.major.size": 0, "lines.solid_capstyle": "round",
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """One panel, ready to be written; `height` in inches."""

    name: str
    height: float
    paint: Callable[[Axes], None]
    source: str  # SVG in stand-in colours

    def svg(self) -> str:
        """A file of its own."""
        return exchanged(self.source, IN_FILES)

    def png(self) -> bytes:
        """The same in pixels."""
        with colours(IN_FILES):
            paper, nothing = IN_FILES[PAPER], {"Software": None}
            return rendered(self.height, self.paint, format="png", dpi=DPI, facecolor=paper, metadata=nothing)


def draw(name: str, label: str, height: float, paint: Callable[[Axes], None]) -> Markup:
    """One panel.

    Args:
        name: makes the ids in the drawing unique on the page, and names the files.
        label: what the figure shows, for those who do not see it.
        height: inches.
    """
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    svg = rendered(height, paint, format="svg", metadata=nothing).decode()
    attach(Drawing(name, height, paint, svg))
    return inline(svg, name, label)


def rendered(height: float, paint: Callable[[Axes], None], **options: Any) -> bytes:
    """A panel in the page's style, saved with `options`."""
    buffer = io.BytesIO()
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure.add_subplot())
        figure.savefig(buffer, **options)
    return buffer.getvalue()


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


def exchanged(svg: str, values: Mapping[str, str]) -> str:
    """Stand-in colours replaced."""
    for name, stand_in in STAND_INS.items():
        svg = svg.replace(stand_in, values[name])
    return svg


def inline(svg: str, name: str, label: str) -> Markup:
    """A drawing that can stand inside HTML: no prologue, no addresses, ids of its own, the page's colours."""
    drawing = svg[svg.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    view_box = re.search(r'viewBox="([^"]*)"', drawing)
    assert view_box, "matplotlib writes a viewBox"
    drawing = drawing[drawing.index(">") + 1 :]
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", drawing)
    drawing = exchanged(drawing, ON_PAGE)
    opening = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(view_box[1], label)
    return opening + Markup(re.sub(r"\n\s*\n", "\n", drawing).strip())

"""Draw charts with matplotlib: inline SVG for the page, and PNG and SVG files.

The same data gives the same bytes. Matplotlib knows no CSS. A chart on the page is drawn in placeholder
colors, which are then replaced by the variables of the page's style sheet, so that it has the right colors in
light, dark and print. Files have the colors of the light page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import matplotlib.colors
import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from clm_detour.utils.files import atomic_write

SLOTS = ("base", "detour", "twin", "other-1", "other-2", "other-3")
INK, FAINT, PAPER = "page ink", "page line", "page paper"
COLORS = {slot: f"page {slot}" for slot in SLOTS}
MARKERS = {"base": "o", "detour": "D", "twin": "s", "other-1": "o", "other-2": "o", "other-3": "o"}
PLACEHOLDERS = {
    INK: "#100001", FAINT: "#100002", PAPER: "#100003",
    **{name: f"#20000{place}" for place, name in enumerate(COLORS.values(), start=1)},
}  # fmt: skip
ON_PAGE = {
    INK: "currentColor", FAINT: "var(--line)", PAPER: "var(--paper)",
    **{name: f"var(--{slot})" for slot, name in COLORS.items()},
}  # fmt: skip
LIGHT = [  # those of page.css
    "#23211e", "#dcd7ce", "#ffffff", "#7b7f87", "#c2500f", "#2468ad", "#3b7d4a", "#7d4fb0", "#94701a",
]  # fmt: skip
IN_FILES = dict(zip(PLACEHOLDERS, LIGHT, strict=True))
matplotlib.colors.get_named_colors_mapping().update(PLACEHOLDERS)

WIDTH = 4.4  # inches of 72 units: on a phone one unit is about one pixel
DPI = 200
NAME_INCHES, LETTERS = (
    0.25,
    52,
)  # height of a line of names above a chart in a file, and letters in such a line
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


class Chart(Protocol):
    """The content of a figure."""

    @property
    def height(self) -> float:
        """Height in inches."""

    def paint(self, axes: Axes) -> None:
        """Draw the chart."""


@dataclass(frozen=True)
class Figure:
    """A chart as SVG and PNG.

    Args:
        name: Name of the files; makes the ids of the SVG unique on the page.
        names: Names of what has a color -> slot in COLORS. Files show them above the chart; the page shows
            them itself.
    """

    name: str
    chart: Chart
    names: Mapping[str, str] = field(default_factory=dict)

    def inline(self, label: str) -> Markup:
        """Return an SVG that can stand inside HTML; `label` says what it shows to those who do not see it."""
        return inlined(render([self.chart], format="svg").decode(), self.name, label)

    def svg(self) -> str:
        """Return the content of an SVG file."""
        with colors(IN_FILES):
            return render([self.chart], self.names, format="svg").decode()

    def png(self) -> bytes:
        """Return the content of a PNG file."""
        return png([self.chart], self.names)

    def save(self, folder: Path) -> None:
        """Write `NAME.svg` and `NAME.png`."""
        for suffix, content in ((".svg", self.svg().encode()), (".png", self.png())):
            with atomic_write(folder / f"{self.name}{suffix}") as file:
                file.write(content)


def png(charts: Sequence[Chart], names: Mapping[str, str] | None = None, width: float = WIDTH) -> bytes:
    """Return charts, one below the other, as a PNG file; `width` is in inches."""
    with colors(IN_FILES):
        return render(charts, names, width, format="png", dpi=DPI, facecolor=IN_FILES[PAPER])


def render(
    charts: Sequence[Chart],
    names: Mapping[str, str] | None = None,
    width: float = WIDTH,
    *,
    format: str,
    **options: Any,
) -> bytes:
    """Return charts in the page's style, one below the other with one x axis, under lines of names.

    Args:
        names: See `Figure`.
        options: Arguments of `savefig`.
    """
    buffer, names = io.BytesIO(), names or {}
    columns = max(1, LETTERS // (max(map(len, names), default=0) + 4))
    heights = [chart.height for chart in charts]
    with matplotlib.style.context(["default", STYLE]):
        canvas = Canvas((width, sum(heights) + NAME_INCHES * -(-len(names) // columns)), layout="constrained")
        FigureCanvasAgg(canvas)
        panels = canvas.subplots(len(charts), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for chart, axes in zip(charts, panels, strict=True):
            chart.paint(axes)
            axes.label_outer()  # the x axis is named once
        if names:
            handles = [legend_mark(*item) for item in names.items()]
            canvas.legend(
                handles=handles, loc="outside upper left", ncols=columns, frameon=False, handletextpad=0.1
            )
        canvas.savefig(buffer, format=format, metadata=UNDATED[format], **options)
    return buffer.getvalue()


def legend_mark(name: str, slot: str) -> Line2D:
    """Return the mark of a name in a legend, as the page has it beside the name."""
    return Line2D([], [], linestyle="", marker=MARKERS[slot], color=COLORS[slot], label=name)


@contextmanager
def colors(values: Mapping[str, str]) -> Iterator[None]:
    """Draw in these colors instead of the placeholders."""
    name_colors(values)
    try:
        yield
    finally:
        name_colors(PLACEHOLDERS)


def name_colors(values: Mapping[str, str]) -> None:
    """Set named colors one by one: matplotlib forgets what a name meant only when a single one is set."""
    names = matplotlib.colors.get_named_colors_mapping()
    for name, value in values.items():
        names[name] = value


def inlined(svg: str, name: str, label: str) -> Markup:
    """Return the drawing of an SVG file for HTML: without prologue and links, with the page's colors."""
    drawing = svg[svg.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    view_box = re.search(r'viewBox="([^"]*)"', drawing)
    assert view_box, "matplotlib writes a viewBox"
    drawing = drawing[drawing.index(">") + 1 :]
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", drawing)
    for color, placeholder in PLACEHOLDERS.items():
        drawing = drawing.replace(placeholder, ON_PAGE[color])
    opening = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(view_box[1], label)
    return opening + Markup(re.sub(r"\n\s*\n", "\n", drawing).strip())

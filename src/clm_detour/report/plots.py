"""Figures as inline SVG: the same bytes for the same data, text as text, colours from the page.

Matplotlib knows no CSS, so everything is drawn in stand-in colours that are exchanged for the page's
variables in the end; a figure is then right in light, dark and print.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, FAINT, PAPER = "#100001", "#100002", "#100003"
COLOURS = {
    "base": "#200001", "detour": "#200002", "twin": "#200003",
    "other-1": "#200004", "other-2": "#200005", "other-3": "#200006",
}  # fmt: skip
MARKERS = {"base": "o", "detour": "D", "twin": "s", "other-1": "o", "other-2": "o", "other-3": "o"}
ON_PAGE = {
    INK: "currentColor", FAINT: "var(--line)", PAPER: "var(--paper)",
    **{colour: f"var(--{slot})" for slot, colour in COLOURS.items()},
}  # fmt: skip

WIDTH = 4.4  # inches of 72 units: on a phone one unit is about one pixel
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "clm-detour", "font.size": 10, "text.parse_math": False,
    "text.color": INK, "axes.labelcolor": INK, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.edgecolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT, "grid.color": FAINT,
    "axes.grid": True, "grid.linewidth": 0.5, "axes.axisbelow": True, "axes.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "xtick.major.size": 0, "ytick.major.size": 0, "lines.solid_capstyle": "round",
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip


def draw(name: str, label: str, height: float, paint: Callable[[Axes], None]) -> Markup:
    """One panel.

    Args:
        name: makes the ids in the drawing unique on the page.
        label: what the figure shows, for those who do not see it.
        height: inches.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return inline(buffer.getvalue(), name, label)


def inline(svg: str, name: str, label: str) -> Markup:
    """A drawing that can stand inside HTML: no prologue, no addresses, ids of its own, the page's colours."""
    drawing = svg[svg.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    view_box = re.search(r'viewBox="([^"]*)"', drawing)
    assert view_box, "matplotlib writes a viewBox"
    drawing = drawing[drawing.index(">") + 1 :]
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", drawing)
    for colour, variable in ON_PAGE.items():
        drawing = drawing.replace(colour, variable)
    opening = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(view_box[1], label)
    return opening + Markup(re.sub(r"\n\s*\n", "\n", drawing).strip())

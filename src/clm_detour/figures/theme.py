"""The look of all charts: the color, marker and dash of each arm, and the settings of axes and legends.

The colors are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which people with any kind of color
vision tell apart. Three of them are too pale for light paper and are darkened there to a contrast of 3:1. The
colors of arms mean arms and nothing else, and those of verdicts mean verdicts: other lines and heat maps have
shades of the text's color.

A chart is described in the colors of light paper. `on_page` replaces them by the variables that `variables`
defines, so that the browser chooses between light, dark and print. Files keep the colors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar


@dataclass(frozen=True)
class Look:
    """The look of a line or dot.

    Args:
        light, dark: Colors on light and on dark paper.
        shape: Marker, by Vega's name or as a path in the square from -1 to 1.
        dash: Lengths of strokes and gaps in pixels; an unbroken line if empty.
    """

    light: str
    dark: str
    shape: str
    dash: tuple[int, ...] = ()


ARMS = {
    "base": Look("#6b7077", "#a4a8b0", "circle", (2, 2)),
    "detour": Look("#d55e00", "#d65f01", "diamond"),
    "twin": Look("#0072b2", "#2f86bd", "square", (7, 3)),
    "control": Look("#3897cf", "#56b4e9", "triangle-up", (3, 3)),
    "other-1": Look("#009e73", "#01a074", "triangle-down", (9, 2, 2, 2)),
    "other-2": Look("#bb6894", "#cc79a7", "cross", (5, 2, 1, 2)),
    "other-3": Look("#b47c00", "#e69f00", "triangle-right", (2, 5)),
}
NEUTRAL = {
    "neutral-1": Look("#23211f", "#e4e1da", "circle"),
    "neutral-2": Look("#55514b", "#b9b5ad", "square", (7, 3)),
    "neutral-3": Look("#807b73", "#8e8a83", "triangle-up", (2, 2)),
}
VERDICTS = {
    "supported": Look("#2e7d32", "#6cbf70", "circle"),
    "refuted": Look("#b3261e", "#f0857d", "square"),
    "undecided": Look("#6a655e", "#a9a59d", "diamond"),
}
LOOKS = ARMS | NEUTRAL | VERDICTS
INK, SOFT, LINE = "#23211e", "#67625b", "#dcd7ce"  # text, its less important parts, and lines of the paper
PAPERS = {"light": "#fdfcfa", "dark": "#191a1c"}
SHADES = (
    "#f3f0ea", "#e0dcd5", "#ccc8c1", "#b8b4ae", "#a4a09a", "#8f8c86", "#7a7772", "#65625e", "#4f4d4a",
    "#383634",
)  # fmt: skip
DARK_SHADES = (
    "#232427", "#343537", "#464749", "#585a5b", "#6c6d6e", "#808182", "#959696", "#abaaaa", "#c2c0bf",
    "#dad7d4",
)  # fmt: skip
LIGHT = {
    "ink": INK, "soft": SOFT, "line": LINE,
    **{slot: look.light for slot, look in LOOKS.items()},
    **{f"shade-{place}": shade for place, shade in enumerate(SHADES)},
}  # fmt: skip
DARK = {
    "ink": "#e4e1db", "soft": "#a29e96", "line": "#3b3b3d",
    **{slot: look.dark for slot, look in LOOKS.items()},
    **{f"shade-{place}": shade for place, shade in enumerate(DARK_SHADES)},
}  # fmt: skip

HEX = re.compile(r"#[0-9a-f]{6}\b")

WIDTH = 440  # pixels of a chart in a file; on a phone a chart is about 350 wide
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
CONFIG: dict[str, Any] = {
    "background": None,
    "font": FONT,
    "padding": {"left": 0, "right": 5, "top": 5, "bottom": 5},
    "view": {"stroke": None},
    "axis": {
        "domain": False, "ticks": False, "gridColor": LINE, "gridWidth": 0.6, "labelColor": INK,
        "labelFontSize": 11, "labelPadding": 6, "labelLimit": 130, "titleColor": INK, "titleFontSize": 12,
        "titleFontWeight": "normal", "titlePadding": 8,
    },
    "legend": {
        "labelColor": INK, "labelFontSize": 12, "labelLimit": 260, "symbolSize": 80, "symbolStrokeWidth": 2,
        "titleColor": INK, "titleFontSize": 12, "titleFontWeight": "normal", "columnPadding": 14, "offset": 8,
    },
    "title": {"color": INK, "fontSize": 12, "fontWeight": "normal", "anchor": "start", "offset": 8},
    "text": {"color": INK, "fontSize": 11},
    "rule": {"color": INK},
    "line": {"strokeWidth": 1.8},
    "point": {"filled": True, "size": 40, "opacity": 1},
}  # fmt: skip


def looks(slots: Sequence[str]) -> list[Look]:
    """Return the looks of slots."""
    return [LOOKS[slot] for slot in slots]


T = TypeVar("T", str, dict[str, Any])


def on_page(drawing: T) -> T:
    """Return a chart's SVG or description with the variables of the page's style sheet as colors."""
    return recolored(drawing, {color: f"var(--{name})" for name, color in LIGHT.items()})


def on_dark(drawing: T) -> T:
    """Return a chart's SVG or description in the colors of dark paper."""
    return recolored(drawing, {color: DARK[name] for name, color in LIGHT.items()})


def recolored(drawing: Any, colors: dict[str, str]) -> Any:
    """Return an SVG, or a nest of lists and dictionaries, in which colors are replaced."""
    if isinstance(drawing, dict):
        return {key: recolored(value, colors) for key, value in drawing.items()}
    if isinstance(drawing, list):
        return [recolored(value, colors) for value in drawing]
    if not isinstance(drawing, str):
        return drawing
    return HEX.sub(lambda found: colors.get(found[0], found[0]), drawing)


def variables() -> str:
    """Return the style sheet that defines the colors of charts and arms in light, dark and print."""
    light, dark = (
        " ".join(f"--{name}: {color};" for name, color in colors.items()) for colors in (LIGHT, DARK)
    )
    keys = " ".join(f".{slot} {{ background: var(--{slot}); }}" for slot in ARMS)
    darker = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    return f":root {{ {light} }}\n{darker}\n{keys}\n"

"""A dot plot: rows with a dot for each group, intervals as lines, and a line at zero for differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from clm_detour.figures.canvas import FAINT, INK, PAPER

NAME_LENGTH = 20
APART = 0.2  # between the dots of a row, so that equal values do not hide each other


@dataclass(frozen=True)
class Dot:
    """A value with its interval, if there is one; `label` is written beside it."""

    value: float
    color: str
    interval: tuple[float, float] | None = None
    marker: str = "o"
    label: str = ""


@dataclass(frozen=True)
class DotPlot:
    """Dots in rows, from top to bottom.

    Args:
        rows: Name of a row -> a dot for each group, or None where it was not measured.
        x_label: What the values are.
        zero: Whether there is a line at zero.
        reach: The axis ends at plus and minus this value; None to leave it to the dots.
        title: Lines above the plot.
    """

    rows: Mapping[str, Sequence[Dot | None]]
    x_label: str = ""
    zero: bool = False
    reach: float | None = None
    title: str = ""

    @property
    def height(self) -> float:
        """Height in inches."""
        return 0.9 + 0.36 * len(self.rows) + (0.2 * (1 + self.title.count("\n")) if self.title else 0)

    def paint(self, axes: Axes) -> None:
        """Draw the plot."""
        for row, dots in enumerate(self.rows.values()):
            for place, dot in enumerate(dots):
                if dot is not None and math.isfinite(dot.value):
                    paint_dot(axes, dot, row + APART * (place - (len(dots) - 1) / 2))
        if self.zero:
            axes.axvline(0, color=INK, linewidth=0.8)
        if self.reach is not None:
            axes.set_xlim(-self.reach, self.reach)
        # A name that would take the whole plot is cut; the table beside the plot has it in full.
        names = [name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…" for name in self.rows]
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.spines["bottom"].set_color(FAINT)
        axes.set_xlabel(self.x_label)
        if self.title:
            axes.set_title(self.title, fontsize="medium", loc="left")


def paint_dot(axes: Axes, dot: Dot, y: float) -> None:
    """Draw a dot over its interval, and its label on the side away from zero."""
    if dot.interval is not None:
        axes.plot(dot.interval, [y, y], color=dot.color, linewidth=1.5)
    edge: dict[str, Any] = {"markeredgecolor": PAPER, "markeredgewidth": 0.8}
    axes.plot([dot.value], [y], dot.marker, color=dot.color, markersize=6.5, **edge)
    if dot.label:
        side, align = (-8, "right") if dot.value < 0 else (8, "left")
        axes.annotate(dot.label, (dot.value, y), (side, 0), textcoords="offset points", ha=align, va="center")

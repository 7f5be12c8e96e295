"""Charts of lines over tokens or layers, and heat maps of layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from clm_detour.figures.canvas import FAINT

SHADES = 20  # of a heat map
NAMED = 12  # layers at most that have their name on an axis
SHORT = {"embeddings": "emb.", "final_norm": "norm"}
UNITS = ((1e12, "trillions"), (1e9, "billions"), (1e6, "millions"), (1e3, "thousands"))


@dataclass(frozen=True)
class Line:
    """A line through points; NaN leaves a gap.

    Args:
        opacity: From 0 to 1.
        marker: Size of the marks at the points; 0 for none.
        band: Lower and upper end of an interval at each point, or None where it is not known.
    """

    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    color: str
    label: str = ""
    width: float = 1.6
    dashed: bool = False
    opacity: float | None = None
    marker: float = 0
    band: Sequence[tuple[float, float] | None] = ()

    def paint(self, axes: Axes) -> None:
        """Draw the line and its band."""
        marks: dict[str, Any] = {"marker": "o", "markersize": self.marker} if self.marker else {}
        names: dict[str, Any] = {"label": self.label} if self.label else {}
        style = (0, (4, 2)) if self.dashed else "-"
        look: dict[str, Any] = {
            "color": self.color,
            "linewidth": self.width,
            "linestyle": style,
            "alpha": self.opacity,
        }
        axes.plot(self.x, self.y, **look, **marks, **names)
        if self.band:
            bounds = [(math.nan, math.nan) if pair is None else pair for pair in self.band]
            low, high = np.array(bounds).T
            axes.fill_between(self.x, low, high, color=self.color, alpha=0.15, linewidth=0)


@dataclass(frozen=True)
class LineChart:
    """Lines over tokens or layers.

    Args:
        layers: Names of the layers on the x axis, at 0, 1, ...; None for an axis of tokens.
        first, last: Ends of an axis of tokens.
        borders: Vertical lines on an axis of tokens.
        spans: Names above parts of an axis of tokens: (first token, last token, name).
        y_format: Returns the text of a tick; matplotlib's own texts without it.
        y_ticks: Number of ticks at most.
        from_zero: Whether the y axis begins at zero.
        legend: Title of a legend of the lines' labels; empty for a legend without a title, None for no
            legend.
    """

    lines: Sequence[Line]
    layers: Sequence[str] | None = None
    first: float = 0
    last: float = 1
    borders: Sequence[float] = ()
    spans: Sequence[tuple[float, float, str]] = ()
    y_label: str = ""
    y_format: Callable[[float], str] | None = None
    y_ticks: int | None = None
    from_zero: bool = False
    legend: str | None = None
    height: float = 2.9

    def paint(self, axes: Axes) -> None:
        """Draw the chart."""
        for line in self.lines:
            line.paint(axes)
        self._paint_y_axis(axes)
        if self.layers is None:
            self._paint_token_axis(axes)
        else:
            name_layers(axes.set_xticks, self.layers, 0)
            axes.set_xlabel("layer")
        if self.legend is not None:
            title: dict[str, Any] = {"title": self.legend, "title_fontsize": 8} if self.legend else {}
            axes.legend(fontsize=8, frameon=False, handlelength=3.2, **title)

    def _paint_y_axis(self, axes: Axes) -> None:
        if self.from_zero:
            axes.set_ylim(bottom=0)
        if self.y_ticks:
            axes.yaxis.set_major_locator(MaxNLocator(self.y_ticks))
        if write := self.y_format:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
        axes.set_ylabel(self.y_label)

    def _paint_token_axis(self, axes: Axes) -> None:
        axes.set_xlim(self.first, 1.01 * self.last)
        scale, word = next(((size, word) for size, word in UNITS if self.last >= size), (1.0, ""))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale:g}"))
        axes.set_xlabel(f"tokens trained ({word})" if word else "tokens trained")
        for border in self.borders:
            axes.axvline(border, color=FAINT, linewidth=1)
        across = axes.get_xaxis_transform()
        for start, end, name in self.spans:
            axes.text((start + end) / 2, 1.02, name, transform=across, ha="center", va="bottom")


@dataclass(frozen=True)
class HeatMap:
    """CKA of all layers of one model with all layers of another; the first layers are at the bottom left.

    Args:
        matrix: A row for each layer of the first model, a column for each layer of the second.
        rows, columns: Names of the layers.
        lowest: Where the scale of shades begins; it ends at 1.
    """

    matrix: Sequence[Sequence[float]]
    rows: Sequence[str]
    columns: Sequence[str]
    x_label: str
    y_label: str
    lowest: float = 0.0
    height: float = 3.7

    def paint(self, axes: Axes) -> None:
        """Draw the map with its scale."""
        shades = matplotlib.colormaps["viridis"].resampled(SHADES)
        mesh = axes.pcolormesh(
            np.array(self.matrix), cmap=shades, vmin=self.lowest, vmax=1, edgecolors="none"
        )
        axes.grid(False)
        axes.set_aspect("equal")
        axes.spines["bottom"].set_visible(False)
        name_layers(axes.set_xticks, self.columns, 0.5)
        name_layers(axes.set_yticks, self.rows, 0.5)
        axes.set_xlabel(self.x_label)
        axes.set_ylabel(self.y_label)
        bar = axes.figure.colorbar(mesh, ax=axes, label="similarity (CKA)")
        bar.outline.set_visible(False)  # type: ignore[operator]


def name_layers(set_ticks: Callable[..., object], layers: Sequence[str], shift: float) -> None:
    """Name the layers on an axis; not all of a deep network."""
    step = math.ceil(len(layers) / NAMED)
    names = [SHORT.get(layer, layer) for layer in layers[::step]]
    set_ticks([place + shift for place in range(0, len(layers), step)], names)


def lowest_of(matrices: Sequence[Sequence[Sequence[float]]]) -> float:
    """Return a round number at or below every value, for the scale of several heat maps."""
    values = [value for matrix in matrices for row in matrix for value in row if not math.isnan(value)]
    return min(max(math.floor(10 * min(values, default=0.0)) / 10, -0.5), 0.9)

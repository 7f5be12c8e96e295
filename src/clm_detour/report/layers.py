"""Figures over the layers of a network: heat map of all against all, curves from the first layer to the last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from clm_detour.evaluate.statistics import Interval
from clm_detour.report.analysis import Layers
from clm_detour.report.plots import draw

SHADES = 20  # of a heat map
NAMED = 12  # layers at most that have their name on an axis
SHORT = {"embeddings": "emb.", "final_norm": "norm", "head": "head"}


@dataclass(frozen=True)
class Line:
    """One curve: a value a layer, with intervals where known."""

    label: str
    values: Layers
    colour: str
    dashed: bool = False
    width: float = 1.6
    intervals: Sequence[Interval | None] = ()


def heat_map(name: str, label: str, matrix: Sequence[Layers], rows: Sequence[str], columns: Sequence[str],
             lowest: float) -> Markup:  # fmt: skip
    """CKA of all layers with all layers; the first layers at the bottom left.

    Args:
        lowest: where the scale begins; it ends at 1.
    """
    values = np.array([[math.nan if value is None else value for value in row] for row in matrix])

    def paint(axes: Axes) -> None:
        shades = matplotlib.colormaps["viridis"].resampled(SHADES)
        mesh = axes.pcolormesh(values, cmap=shades, vmin=lowest, vmax=1, edgecolors="none")
        axes.grid(False)
        axes.set_aspect("equal")
        axes.spines["bottom"].set_visible(False)
        name_layers(axes, columns, 0.5)
        step = stride(rows)
        axes.set_yticks([place + 0.5 for place in range(0, len(rows), step)], list(map(short, rows[::step])))
        axes.set_xlabel("layer of the twin")
        axes.set_ylabel("layer of the detour")
        bar = axes.figure.colorbar(mesh, ax=axes, label="similarity (CKA)")
        bar.outline.set_visible(False)  # type: ignore[operator]

    return draw(name, label, 3.7, paint)


def layer_curves(name: str, label: str, layers: Sequence[str], lines: Sequence[Line], what: str) -> Markup:
    """Curves in percent."""

    def paint(axes: Axes) -> None:
        for line in lines:
            values = [math.nan if value is None else 100 * value for value in line.values]
            axes.plot(values, color=line.colour, linewidth=line.width, linestyle=(0, (4, 2)) if line.dashed else "-",
                      marker="o", markersize=3, label=line.label)  # fmt: skip
            bounds = [(math.nan, math.nan) if pair is None else pair for pair in line.intervals]
            if bounds:
                low, high = (100 * np.array(side) for side in zip(*bounds, strict=True))
                axes.fill_between(range(len(low)), low, high, color=line.colour, alpha=0.15, linewidth=0)
        name_layers(axes, layers, 0)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        axes.set_xlabel("layer")
        axes.set_ylabel(what)
        axes.legend(fontsize=8, frameon=False, handlelength=3.2)

    return draw(name, label, 3.2, paint)


def name_layers(axes: Axes, layers: Sequence[str], shift: float) -> None:
    """Layers' names below; not all of a deep network."""
    step = stride(layers)
    axes.set_xticks(
        [place + shift for place in range(0, len(layers), step)], list(map(short, layers[::step]))
    )


def stride(layers: Sequence[str]) -> int:
    """Every how manyth layer is named."""
    return math.ceil(len(layers) / NAMED)


def short(layer: str) -> str:
    """A name that fits below a tick."""
    return SHORT.get(layer, layer)


def lowest_of(matrices: Mapping[str, Sequence[Layers]]) -> float:
    """A round number at or below every value."""
    values = [value for matrix in matrices.values() for row in matrix for value in row if value is not None]
    return min(max(math.floor(10 * min(values, default=0.0)) / 10, -0.5), 0.9)

"""Figures of the analysis: heat maps of CKA, divergence by layer, and the trajectory of the detour.

The report shows the same charts with the names of the arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clm_detour.figures.canvas import COLORS, Figure
from clm_detour.figures.charts import HeatMap, Line, LineChart, lowest_of
from clm_detour.records.analysis import NetworkComparison, TrajectoryRecord
from clm_detour.records.store import Interval, parse

MAPS = ("biased", "debiased")
CURVES = {"biased": "biased", "debiased": "debiased", "debiased_trimmed": "no outliers"}
SLOTS = {"biased": "base", "debiased": "detour", "debiased_trimmed": "twin"}
REFERENCE = "undecayed_twin"


def similarity_maps(found: NetworkComparison, a: str, b: str) -> dict[str, HeatMap]:
    """Return a heat map of all layers of a with all layers of b for each measured estimator of `MAPS`.

    Args:
        a, b: What the models are called.
    """
    matrices = {
        name: variant.matrix
        for name in MAPS
        if (variant := found.variant("detour_twin", name)) and variant.matrix
    }
    lowest = lowest_of(list(matrices.values()))
    return {
        name: HeatMap(matrix, *found.layers, f"layer of {b}", f"layer of {a}", lowest)
        for name, matrix in matrices.items()
    }


def divergence_chart(found: NetworkComparison) -> LineChart:
    """Return the divergence of a and b by layer and estimator; the control's is dashed.

    The debiased curves are wide and lie below the others, which may coincide with them. They have bands,
    which are their intervals.
    """
    lines = []
    for part in ("detour_twin", "control"):
        for name, title in CURVES.items():
            if variant := found.curve(part, name):
                main, label = name == "debiased", title if part == "detour_twin" else f"{title}, control"
                bands = [interval and percents(interval) for interval in variant.intervals] if main else ()
                values = [100 * value for value in variant.divergence]
                lines.append(
                    Line(
                        range(len(values)), values, COLORS[SLOTS[name]], label, width=3.2 if main else 1.4,
                        dashed=part == "control", marker=3, band=bands,
                    )
                )  # fmt: skip
    lines.sort(key=lambda line: -line.width)
    return LineChart(
        lines,
        layers=[one for one, _ in found.main.pairs],
        y_label="divergence (1 − CKA)",
        y_format="{:g} %".format,
        from_zero=True,
        legend="",
        height=3.2,
    )


def trajectory_chart(found: TrajectoryRecord) -> LineChart:
    """Return the debiased divergence of the detour's checkpoints from the undecayed twin.

    There is a line for each third of the layers.
    """
    points = [point for point in found.points if REFERENCE in point.divergence]
    groups = {name: span for name, span in found.groups.items() if name != "all"}
    tokens = [point.total for point in points]
    lines = []
    for (group, span), slot in zip(groups.items(), ("twin", "base", "detour"), strict=False):
        estimates = [point.estimate(REFERENCE, "debiased", group) for point in points]
        values = [100 * each.divergence for each in estimates]
        band = [each.interval and percents(each.interval) for each in estimates]
        label = f"{group} ({span[0]} to {span[1]})"
        lines.append(Line(tokens, values, COLORS[slot], label, marker=3.5, band=band))
    phases = [point.phase for point in points]
    borders = [tokens[i] for i in range(len(points) - 1) if phases[i + 1] != phases[i] and tokens[i]]
    return LineChart(
        lines,
        last=max([*tokens, 1]),
        borders=borders,
        y_label="divergence, % (debiased)",
        from_zero=True,
        legend="layers",
        height=3.1,
    )


def percents(interval: Interval) -> Interval:
    """Return an interval in percent."""
    return 100 * interval[0], 100 * interval[1]


def save_comparison(found: NetworkComparison, folder: Path) -> None:
    """Write `heatmap-biased`, `heatmap-debiased` and `curves` as PNG and SVG."""
    for name, chart in similarity_maps(found, "A", "B").items():
        Figure(f"heatmap-{name}", chart).save(folder)
    Figure("curves", divergence_chart(found)).save(folder)


def save_trajectory(result: Mapping[str, Any], folder: Path) -> None:
    """Write `trajectory.png` and `trajectory.svg`."""
    Figure("trajectory", trajectory_chart(parse(TrajectoryRecord, result))).save(folder)

"""Figures of the analysis: heat map of CKA, divergence by layer, and the trajectory of the detour.

The report shows the same charts with the names of the arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clm_detour.figures.axes import Layers, Tokens, Values
from clm_detour.figures.figure import Figure
from clm_detour.figures.heatmap import HeatMap
from clm_detour.figures.lines import Line, LineChart
from clm_detour.figures.parts import Switch
from clm_detour.records.analysis import NetworkComparison, TrajectoryRecord
from clm_detour.records.store import parse

MAPS = ("debiased", "biased")
CURVES = {
    "debiased": "debiased", "biased": "biased", "debiased_trimmed": "no outliers",
    "biased_trimmed": "biased, no outliers",
}  # fmt: skip
PAIRS = {"detour_twin": "detour", "control": "control"}  # comparison -> color of its line
REFERENCE = "undecayed_twin"


def similarity_map(found: NetworkComparison, a: str, b: str) -> HeatMap | None:
    """Return the heat map of all layers of a with all layers of b, or None if it was not measured.

    There is a switch of the estimator.

    Args:
        a, b: What the models are called.
    """
    matrices = {
        name: variant.matrix
        for name in MAPS
        if (variant := found.variant("detour_twin", name)) and variant.matrix
    }
    if not matrices:
        return None
    switch = estimator_switch(matrices)
    return HeatMap(matrices, *found.layers, f"layer of {b}", f"layer of {a}", switch)


def divergence_chart(found: NetworkComparison, names: Mapping[str, str]) -> LineChart:
    """Return the divergence of a and b by layer, beside that of b and the control, with their intervals.

    There is a switch of the estimator.

    Args:
        names: What the comparisons `detour_twin` and `control` are called.
    """
    lines = []
    for part, name in names.items():
        for estimator in CURVES:
            if variant := found.curve(part, estimator):
                values = variant.divergence
                lines.append(Line(range(len(values)), values, name, variant.intervals, option=estimator))
    drawn = {line.name for line in lines}
    return LineChart(
        lines,
        {name: PAIRS[part] for part, name in names.items() if name in drawn},
        Layers([one for one, _ in found.main.pairs]),
        Values("divergence (1 − CKA), with 95 % intervals", "~%", ".2%"),
        switch=estimator_switch({line.option for line in lines}),
        points=True,
        from_zero=True,
    )


def estimator_switch(options: Mapping[str, object] | set[str]) -> Switch:
    """Return the switch between these estimators."""
    return Switch("estimator", "Estimator", {name: CURVES[name] for name in CURVES if name in options})


def trajectory_chart(found: TrajectoryRecord, reference: str = "undecayed twin") -> LineChart:
    """Return the debiased divergence of the detour's checkpoints from the undecayed twin.

    There is a line for each third of the layers.

    Args:
        reference: What the undecayed twin is called.
    """
    points = [point for point in found.points if REFERENCE in point.divergence]
    groups = {name: span for name, span in found.groups.items() if name != "all"}
    tokens = [point.total for point in points]
    lines, entries = [], {}
    for place, (group, span) in enumerate(groups.items(), start=1):
        estimates = [point.estimate(REFERENCE, "debiased", group) for point in points]
        name = f"{group} ({span[0]} to {span[1]})"
        entries[name] = f"neutral-{place}"
        lines.append(
            Line(tokens, [each.divergence for each in estimates], name, [each.interval for each in estimates])
        )
    phases = [point.phase for point in points]
    return LineChart(
        lines,
        entries,
        Tokens(
            max([*tokens, 1]),
            borders=[tokens[i] for i in ends_of(phases) if tokens[i]],
            spans=spans(tokens, phases),
        ),
        Values(f"divergence from the {reference} (debiased)", "~%", ".2%"),
        points=True,
        from_zero=True,
        legend="layers",
    )


def ends_of(phases: Sequence[str]) -> list[int]:
    """Return the places of the last points of phases, without the end of all."""
    return [place for place in range(len(phases) - 1) if phases[place + 1] != phases[place]]


def spans(tokens: Sequence[int], phases: Sequence[str]) -> list[tuple[float, float, str]]:
    """Return the phases' first and last tokens, and their names."""
    ends = [*ends_of(phases), len(phases) - 1]
    starts = [0, *(tokens[end] for end in ends)]
    found = [
        (start, tokens[end], phases[end].rsplit(".", 1)[-1]) for start, end in zip(starts, ends, strict=False)
    ]
    return [(float(start), float(end), name) for start, end, name in found if end > start]


def save_comparison(found: NetworkComparison, folder: Path) -> None:
    """Write `heatmap-ESTIMATOR` and `curves-ESTIMATOR` as PNG and SVG."""
    if chart := similarity_map(found, "A", "B"):
        Figure("heatmap", chart.draw()).save(folder)
    names = {"detour_twin": "A and B", "control": "B and control"}
    Figure("curves", divergence_chart(found, names).draw()).save(folder)


def save_trajectory(result: Mapping[str, Any], folder: Path) -> None:
    """Write `trajectory.png` and `trajectory.svg`."""
    Figure("trajectory", trajectory_chart(parse(TrajectoryRecord, result)).draw()).save(folder)

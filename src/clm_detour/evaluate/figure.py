"""The differences between two models, a dot a task, and their mean below.

A panel has one kind of interval: where the mean's is over tasks, the tasks' dots are what it is made of, and have none of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clm_detour.evaluate.statistics import OVER
from clm_detour.evaluate.tables import p_value, several_tests
from clm_detour.utils.files import atomic_write

WIDTH, ROW = 6.5, 0.28  # inches
TASK, MEAN = "#3a6ea5", "#b3541e"


def write_differences(summary: Mapping[str, Any], path: Path) -> None:
    """Write a PNG with a panel for each comparison of a summary; if it has none, remove an earlier one's figure."""
    comparisons = summary["comparisons"]
    if not comparisons:
        path.unlink(missing_ok=True)
        return
    heights = [len(row["by_task"]) + 3 for row in comparisons]
    figure = Figure(figsize=(WIDTH, ROW * sum(heights) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(comparisons), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    several = several_tests(summary)
    for axes, row in zip(panels, comparisons, strict=True):
        paint(axes, row, several)
    panels[-1].set_xlabel("points")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})


def paint(axes: Any, row: Mapping[str, Any], several: bool) -> None:
    """One comparison."""
    over_tasks = row["interval_over"] == "tasks"
    entries = [
        (task, each["difference"], None if over_tasks else each["interval"], TASK)
        for task, each in row["by_task"].items()
    ]
    entries.append(("all", row["difference"], row["interval"], MEAN))
    for place, (_, difference, interval, colour) in enumerate(entries):
        if interval is not None:
            axes.plot(interval, [place, place], color=colour, linewidth=1.5)
        axes.plot([difference], [place], "o", color=colour, markersize=5)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(entries)), [entry[0] for entry in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_title(title(row, several), fontsize="medium", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def title(row: Mapping[str, Any], several: bool) -> str:
    """Return the pair, its p if it has one, and what the panel's bars are if it has any."""
    kind = row["interval_over"] or "seeds"
    some = kind == "tasks" or any(each["interval"] for each in row["by_task"].values())
    bars = f"\nbars: 95 % intervals {OVER[kind]}" if some else ""
    return f"{row['a']} - {row['b']}{p_value(row, several)}{bars}"

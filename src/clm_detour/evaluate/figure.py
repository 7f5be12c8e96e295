"""The differences between models: a plot for each pair, with a dot for each task and one for their mean."""

from __future__ import annotations

from pathlib import Path

from clm_detour.evaluate.tables import p_value, several_tests
from clm_detour.figures.canvas import COLORS, png
from clm_detour.figures.dots import Dot, DotPlot
from clm_detour.records.evaluation import OVER, Summary, TaskComparison
from clm_detour.utils.files import atomic_write

WIDTH = 6.5  # inches


def write_differences(summary: Summary, path: Path) -> None:
    """Write a PNG with a plot for each comparison, or remove an earlier PNG if there are no comparisons."""
    if not summary.comparisons:
        path.unlink(missing_ok=True)
        return
    several = several_tests(summary)
    with atomic_write(path) as file:
        file.write(png([difference_plot(row, several) for row in summary.comparisons], width=WIDTH))


def difference_plot(row: TaskComparison, several: bool) -> DotPlot:
    """Return the plot of one comparison.

    A plot has one kind of interval. Where the interval of the mean is over tasks, the tasks' dots are what it
    is made of, and have no intervals of their own.
    """
    kind = row.interval_over or "seeds"
    rows = {
        task: [Dot(each.difference, COLORS["twin"], each.interval if kind == "seeds" else None)]
        for task, each in row.by_task.items()
    }
    rows["all"] = [Dot(row.difference, COLORS["detour"], row.interval)]
    some = any(dot.interval for dots in rows.values() for dot in dots)
    bars = f"\nbars: 95 % intervals {OVER[kind]}" if some else ""
    return DotPlot(rows, "points", zero=True, title=f"{row.a} - {row.b}{p_value(row, several)}{bars}")

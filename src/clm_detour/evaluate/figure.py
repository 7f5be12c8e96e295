"""The differences between models: a plot for each pair, with a dot for each task and one for their mean."""

from __future__ import annotations

from pathlib import Path

import altair as alt

from clm_detour.evaluate.tables import p_value, several_tests
from clm_detour.figures.axes import Values
from clm_detour.figures.dots import Dot, DotPlot
from clm_detour.figures.figure import Figure
from clm_detour.records.evaluation import OVER, Summary, TaskComparison
from clm_detour.utils.files import atomic_write

LOOKS = {"task": "neutral-2", "all": "neutral-1"}
WIDTH = 420  # pixels of a plot without the names of its rows


def write_differences(summary: Summary, path: Path) -> None:
    """Write a PNG with a plot for each comparison, or remove an earlier PNG if there are no comparisons."""
    if not summary.comparisons:
        path.unlink(missing_ok=True)
        return
    several = several_tests(summary)
    plots = [difference_plot(row, several).draw().properties(width=WIDTH) for row in summary.comparisons]
    with atomic_write(path) as file:
        file.write(Figure(path.stem, alt.vconcat(*plots).resolve_scale(x="shared")).png())


def difference_plot(row: TaskComparison, several: bool) -> DotPlot:
    """Return the plot of one comparison.

    A plot has one kind of interval. Where the interval of the mean is over tasks, the tasks' dots are what it
    is made of, and have no intervals of their own.
    """
    kind = row.interval_over or "seeds"
    rows = {
        task: [Dot(each.difference, "task", each.interval if kind == "seeds" else None)]
        for task, each in row.by_task.items()
    }
    rows["all"] = [Dot(row.difference, "all", row.interval)]
    some = any(dot.interval for dots in rows.values() for dot in dots)
    bars = f"\nbars: 95 % intervals {OVER[kind]}" if some else ""
    title = f"{row.a} - {row.b}{p_value(row, several)}{bars}"
    return DotPlot(rows, LOOKS, Values("points", "~g", ".2f"), zero=True, title=title, legend=False)

"""The figure beside a model card: the scores on tasks of all models of the run."""

from __future__ import annotations

from dataclasses import dataclass

from clm_detour.figures.canvas import COLORS, png
from clm_detour.figures.dots import Dot, DotPlot
from clm_detour.records.evaluation import MeanScore, Summary
from clm_detour.report.run import Run

FIGURE = "figure.png"
WIDTH = 7.0  # inches


@dataclass(frozen=True)
class Drawn:
    """A figure as a PNG, its text for those who do not see it, and its caption."""

    png: bytes
    label: str
    caption: str


def draw(run: Run) -> Drawn | None:
    """Return the figure of a run's cards, or None if no task was evaluated."""
    found = run.evaluation
    if not found or not found.scored:
        return None
    label = "Scores on tasks: " + "; ".join(
        f"{task.name} " + ", ".join(
            f"{model} {found.scores[model][task.name].mean:.1f}"
            for model in found.scored
            if task.name in found.scores[model]
        )
        for task in found.tasks
    )  # fmt: skip
    caption = "A dot is the mean test score over seeds; a line joins the lowest and the highest seed."
    names = run.color_slots(found.scored)
    return Drawn(png([score_plot(found, names)], names, WIDTH), label, caption)


def score_plot(found: Summary, names: dict[str, str]) -> DotPlot:
    """Return a row for each task with a dot for each model.

    Args:
        names: Model -> name of its color.
    """
    rows = {
        task.name: [
            score_dot(found.scores[model].get(task.name), COLORS[slot]) for model, slot in names.items()
        ]
        for task in found.tasks
    }
    return DotPlot(rows, "test score (%)")


def score_dot(score: MeanScore | None, color: str) -> Dot | None:
    """Return the dot of a score, with a line from the lowest to the highest seed."""
    if score is None:
        return None
    seeds = score.seeds.values()
    return Dot(score.mean, color, (min(seeds), max(seeds)) if len(seeds) > 1 else None)

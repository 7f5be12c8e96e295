"""The figure beside a model card: the scores on tasks of all models of the run."""

from __future__ import annotations

from dataclasses import dataclass

from clm_detour.figures.axes import Values
from clm_detour.figures.dots import Dot, DotPlot
from clm_detour.figures.figure import Figure
from clm_detour.records.evaluation import Summary
from clm_detour.report.run import Run

FIGURE = "figure.png"


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
    chart = DotPlot(
        score_rows(found), run.color_slots(found.scored), Values("test score (%)", "~r", ".1f")
    ).draw()
    caption = "Scores on tasks. A dot is one fine-tuning seed, a bar the mean over seeds."
    return Drawn(Figure("scores", chart).png(), label_of(found), caption)


def score_rows(found: Summary) -> dict[str, list[Dot | None]]:
    """Return for each task a dot for each model, None where it was not measured."""
    return {task.name: [score_dot(found, task.name, model) for model in found.scored] for task in found.tasks}


def score_dot(found: Summary, task: str, model: str) -> Dot | None:
    """Return the scores of a model on a task."""
    score = found.scores[model].get(task)
    if score is None:
        return None
    seeds = list(score.seeds.values())
    return Dot(score.mean, model, (min(seeds), max(seeds)) if seeds else None, score.seeds)


def label_of(found: Summary) -> str:
    """Return the mean scores in words."""
    parts = [
        f"{task.name} {model} {found.scores[model][task.name].mean:.1f}"
        for task in found.tasks
        for model in found.scored
        if task.name in found.scores[model]
    ]
    return f"Scores on tasks: {', '.join(parts)}"

"""Decide whether the detour or its twin is ahead, on held-out loss and on tasks apart.

Each is judged beside the noise of the same kind: how far apart two equal twins, the arms `twin` and
`control`, are there. A difference that is no larger leaves open which is better. So does held-out loss where
no control was measured.
"""

from __future__ import annotations

import math
from enum import Enum

from clm_detour.figures import wording
from clm_detour.records.evaluation import TaskComparison, significant
from clm_detour.records.run import Score
from clm_detour.report.run import Run

STEP = 0.0005  # the least difference that the page's decimals can show, of a loss and of an accuracy


class Outcome(Enum):
    """The position of the detour against its twin."""

    AHEAD = "the detour is ahead"
    BEHIND = "the detour is behind"
    EQUIVALENT = "equivalent"  # shown by a test of equivalence
    UNDECIDED = "undecided"


def of_scores(detour: Score, twin: Score, control: Score | None, measure: str) -> Outcome:
    """Return the outcome on held-out text.

    Args:
        control: The score of the control, without which the outcome is undecided.
        measure: "loss", of which less is better, or "accuracy".
    """
    if control is None:
        return Outcome.UNDECIDED
    difference = getattr(detour, measure) - getattr(twin, measure)
    noise = abs(getattr(twin, measure) - getattr(control, measure))
    if not sign(difference) or abs(difference) <= noise:
        return Outcome.UNDECIDED
    return Outcome.AHEAD if (difference < 0) == (measure == "loss") else Outcome.BEHIND


def of_tasks(found: TaskComparison, noise: float | None) -> Outcome:
    """Return the outcome on tasks, from the test over tasks or, without one, from the interval over seeds.

    Args:
        found: Detour minus twin.
        noise: See `task_noise`.
    """
    same = found.equivalence
    if same is not None and same.shown and (noise is None or noise <= same.bound):
        return Outcome.EQUIVALENT
    if not is_clear(found) or (noise is not None and abs(found.difference) <= noise):
        return Outcome.UNDECIDED
    return Outcome.AHEAD if found.difference > 0 else Outcome.BEHIND


def is_clear(found: TaskComparison) -> bool:
    """Return whether chance alone does not explain the difference.

    With a test over tasks this is about tasks like these, without one about these tasks only.
    """
    if found.p is not None:
        return significant(found.p if found.p_adjusted is None else found.p_adjusted)
    if found.interval is None or found.interval_over != "seeds":
        return False
    return not found.interval[0] <= 0 <= found.interval[1]


def task_noise(run: Run) -> float | None:
    """Return how many points two equal twins are apart on the tasks of detour and twin; None if not known."""
    noise = signed_task_noise(run)
    return None if noise is None else abs(noise)


def signed_task_noise(run: Run) -> float | None:
    """Return twin minus control in points, over the tasks of detour and twin; None if not known."""
    if not run.evaluation:
        return None
    found = run.evaluation.difference("detour", "twin")
    noise = run.evaluation.difference("twin", "control")
    if not found or not noise or not found.by_task.keys() <= noise.by_task.keys():
        return None
    return math.fsum(noise.by_task[task].difference for task in found.by_task) / len(found.by_task)


def sign(difference: float) -> int:
    """Return -1 or 1, or 0 for a difference that the page does not show."""
    if not math.isfinite(difference) or abs(difference) < STEP:
        return 0
    return 1 if difference > 0 else -1


def loss_clause(run: Run) -> str:
    """Return the part of the title on held-out text; empty where detour and twin were not both measured."""
    held_out = run.held_out
    if not held_out or not {"detour", "twin"} <= held_out.models.keys():
        return ""
    detour, twin, control = (held_out.totals.get(name) for name in ("detour", "twin", "control"))
    if not detour or not twin:
        return "Held-out loss: not measured, since there is no held-out text."
    if not (math.isfinite(detour.loss) and math.isfinite(twin.loss)):
        return "Held-out loss: not finite."
    if not control or not math.isfinite(control.loss):
        words = {-1: "lower", 0: "the same", 1: "higher"}[sign(detour.loss - twin.loss)]
        single = f"the detour's is {words} in this one run and no control shows the noise"
        return f"Held-out loss: undecided, {single}."
    loss, accuracy = (of_scores(detour, twin, control, measure) for measure in ("loss", "accuracy"))
    against = {(Outcome.AHEAD, Outcome.BEHIND): "behind", (Outcome.BEHIND, Outcome.AHEAD): "ahead"}
    but = against.get((loss, accuracy))
    return f"Held-out loss: {loss.value}{f', but {but} in accuracy' if but else ''}."


def task_clause(run: Run) -> str:
    """Return the part of the title on tasks; empty in a run without any."""
    found = run.evaluation.difference("detour", "twin") if run.evaluation else None
    if not found:
        asked = run.config is not None and run.config.evaluate.tasks is not None
        return "Tasks: not measured." if asked else ""
    outcome = of_tasks(found, task_noise(run))
    words = outcome.value
    if outcome is Outcome.EQUIVALENT and found.equivalence:
        words += f" within {found.equivalence.bound:g} points"
    if outcome is not Outcome.UNDECIDED and found.p is None:
        words += f" on {wording.these(len(found.tasks), 'task')} only"
    return f"Tasks: {words}."

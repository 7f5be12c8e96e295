"""Whether the detour or its twin is ahead, on held-out loss and on tasks apart.

Each is judged beside the noise of the same kind: how far two equal twins, the arms `twin` and `control`, are apart there. A difference that
is no larger leaves it open which is better, and so does held-out loss where no control was measured.
"""

from __future__ import annotations

import math
from enum import Enum

from clm_detour.evaluate.statistics import significant
from clm_detour.report import wording
from clm_detour.report.evaluation import Difference
from clm_detour.report.records import Run, Score

STEP = 0.0005  # what the page's decimals can show, of a loss and of an accuracy


class Outcome(Enum):
    """Where the detour stands against its twin."""

    AHEAD = "the detour is ahead"
    BEHIND = "the detour is behind"
    EQUIVALENT = "equivalent"  # shown by a test of equivalence
    UNDECIDED = "undecided"


def of_scores(detour: Score, twin: Score, control: Score | None, measure: str) -> Outcome:
    """Judge a measure of held-out text: "loss", of which less is better, or "accuracy". It is undecided without a control."""
    if control is None:
        return Outcome.UNDECIDED
    difference = getattr(detour, measure) - getattr(twin, measure)
    noise = abs(getattr(twin, measure) - getattr(control, measure))
    if not sign(difference) or abs(difference) <= noise:
        return Outcome.UNDECIDED
    return Outcome.AHEAD if (difference < 0) == (measure == "loss") else Outcome.BEHIND


def of_tasks(found: Difference, noise: float | None) -> Outcome:
    """Judge the tasks: by the test over tasks where there is one, else by the interval over seeds, which speaks of these tasks only.

    Args:
        found: detour minus twin.
        noise: see `task_noise`.
    """
    same = found.equivalence
    if same is not None and same.shown and (noise is None or noise <= same.bound):
        return Outcome.EQUIVALENT
    if not is_clear(found) or (noise is not None and abs(found.value) <= noise):
        return Outcome.UNDECIDED
    return Outcome.AHEAD if found.value > 0 else Outcome.BEHIND


def is_clear(found: Difference) -> bool:
    """Whether chance alone does not explain the difference: on tasks like these if there is a test over tasks, else on these only."""
    if found.p is not None:
        return significant(found.p if found.p_adjusted is None else found.p_adjusted)
    if found.interval is None or found.interval_over != "seeds":
        return False
    return not found.interval[0] <= 0 <= found.interval[1]


def task_noise(run: Run) -> float | None:
    """Return how many points two equal twins are apart on the tasks that detour and twin share; None if not known on all of these."""
    if not run.evaluation:
        return None
    found = run.evaluation.difference("detour", "twin")
    noise = run.evaluation.difference("twin", "control")
    if not found or not noise or not found.by_task.keys() <= noise.by_task.keys():
        return None
    return abs(math.fsum(noise.by_task[task][0] for task in found.by_task) / len(found.by_task))


def sign(difference: float) -> int:
    """-1, 1, or 0 for less than what the page shows."""
    if not math.isfinite(difference) or abs(difference) < STEP:
        return 0
    return 1 if difference > 0 else -1


def loss_clause(run: Run) -> str:
    """Return the title's words on held-out text; nothing where detour and twin have not both been measured."""
    held_out = run.held_out
    if not held_out or not {"detour", "twin"} <= held_out.models.keys():
        return ""
    scores = [held_out.totals.get(name) for name in ("detour", "twin", "control")]
    detour, twin, control = scores
    if not detour or not twin:
        return "Held-out loss: not measured, since there is no held-out text."
    if not (math.isfinite(detour.loss) and math.isfinite(twin.loss)):
        return "Held-out loss: not finite."
    if not control or not math.isfinite(control.loss):
        words = {-1: "lower", 0: "the same", 1: "higher"}[sign(detour.loss - twin.loss)]
        return f"Held-out loss: undecided, the detour's is {words} in this one run and no control shows the noise."
    loss, accuracy = (of_scores(detour, twin, control, measure) for measure in ("loss", "accuracy"))
    against = {(Outcome.AHEAD, Outcome.BEHIND): "behind", (Outcome.BEHIND, Outcome.AHEAD): "ahead"}
    but = against.get((loss, accuracy))
    return f"Held-out loss: {loss.value}{f', but {but} in accuracy' if but else ''}."


def task_clause(run: Run) -> str:
    """Return the title's words on tasks; nothing in a run without any."""
    found = run.evaluation.difference("detour", "twin") if run.evaluation else None
    if not found:
        asked = run.config is not None and run.config.evaluate.tasks is not None
        return "Tasks: not measured." if asked else ""
    outcome = of_tasks(found, task_noise(run))
    words = outcome.value
    if outcome is Outcome.EQUIVALENT and found.equivalence:
        words += f" within {found.equivalence.bound:g} points"
    if outcome is not Outcome.UNDECIDED and found.p is None:
        words += f" on {wording.these(found.tasks, 'task')} only"
    return f"Tasks: {words}."

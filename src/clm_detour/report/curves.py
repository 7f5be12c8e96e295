"""The chart of training: the phases of all arms one after another, with what arms share drawn once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from clm_detour.figures.axes import Tokens, Values
from clm_detour.figures.lines import Line, LineChart
from clm_detour.figures.parts import Switch
from clm_detour.report.run import Phase, Run

MOST_POINTS = 400  # of the loss of a phase: more than a screen shows, and few enough for a small page
FEWER_POINTS = 150  # of everything else that is logged
OBJECTIVES = {"mlm": "masked", "clm": "causal"}
LOSS = Values("loss (nats per predicted token)", ".1f", ".3f")


@dataclass(frozen=True)
class Measure:
    """The values of a phase that the chart shows.

    Args:
        title: Text of its button.
        read: Returns tokens since the start of the phase, and values; None where nothing was measured.
    """

    title: str
    axis: Values
    read: Callable[[Phase], tuple[np.ndarray, np.ndarray] | None]


def of_curve(name: str, most: int = FEWER_POINTS) -> Callable[[Phase], tuple[np.ndarray, np.ndarray] | None]:
    """Return what reads a field of the logged steps."""

    def read(phase: Phase) -> tuple[np.ndarray, np.ndarray] | None:
        values = getattr(phase.curve, name) if phase.curve else np.array([])
        return (
            thinned(phase.curve.tokens, values, most) if phase.curve and np.isfinite(values).any() else None
        )

    return read


def of_watched(name: str) -> Callable[[Phase], tuple[np.ndarray, np.ndarray] | None]:
    """Return what reads the held-out losses during training."""

    def read(phase: Phase) -> tuple[np.ndarray, np.ndarray] | None:
        found = phase.watched
        return (np.array(found.tokens), np.array(getattr(found, name))) if found else None

    return read


MEASURES = {
    "loss": Measure("Loss", LOSS, of_curve("loss", MOST_POINTS)),
    "masked": Measure("Held-out masked loss", LOSS, of_watched("masked")),
    "causal": Measure("Held-out causal loss", LOSS, of_watched("causal")),
    "rate": Measure("Learning rate", Values("learning rate", "~r", ".3~g"), of_curve("learning_rate")),
    "norm": Measure("Gradient norm", Values("gradient norm", "~r", ".3~g"), of_curve("gradient_norm")),
    "speed": Measure("Tokens/s", Values("tokens per second", "~s", ".3~s"), of_curve("tokens_per_second")),
}


def training_chart(run: Run) -> LineChart | None:
    """Return the chart, with a switch of what it shows; None if nothing was logged."""
    phases = [phase for phase in run.phases.values() if phase.curve or phase.watched]
    lines = [
        Line(run.start_token(phase.id) + found[0], found[1], run.first_arm(phase.id), (), part(phase), option)
        for option, measure in MEASURES.items()
        for phase in phases
        if (found := measure.read(phase)) is not None
    ]
    options = [option for option in MEASURES if any(line.option == option for line in lines)]
    if not options:
        return None
    switch = Switch("measure", "Show", {option: MEASURES[option].title for option in options})
    axes = {option: MEASURES[option].axis for option in options}
    entries = run.color_slots(line.name for line in lines)
    return LineChart(lines, entries, tokens_of(run, phases), axes, switch, smoothing="little", height=260)


def part(phase: Phase) -> str:
    """Return a phase with its objective, for the words beside the pointer."""
    return f"{phase.name} ({OBJECTIVES[phase.objective]})" if phase.objective in OBJECTIVES else phase.name


def tokens_of(run: Run, phases: Sequence[Phase]) -> Tokens:
    """Return an axis of all tokens of the run, with the phases' borders and the names of `phases`."""
    ends = {phase.id: run.start_token(phase.id) + phase.tokens for phase in run.phases.values()}
    last = max([*ends.values(), 1])
    names: dict[tuple[int, int], dict[str, None]] = {}
    for phase in phases:
        names.setdefault((run.start_token(phase.id), ends[phase.id]), {})[phase.name] = None
    spans = [(*span, " / ".join(without_variants(found))) for span, found in names.items()]
    borders = sorted(set(ends.values()) - {last})
    return Tokens(last, 0, borders, spans, "tokens since the start of the arm")


def without_variants(names: Collection[str]) -> list[str]:
    """Return names of phases that fit beside each other: `mlm` stands for `mlm_control`, too."""
    return [name for name in names if not any(name.startswith(f"{other}_") for other in names)]


def thinned(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `most` points: means over equal bins of neighbors, and the last point."""
    if len(x) <= most:
        return x, y
    bins = np.array_split(np.arange(len(x) - 1), most - 1)
    thin = [np.array([*(values[part].mean() for part in bins), values[-1]]) for values in (x, y)]
    return thin[0], thin[1]


def first_to_last(values: Sequence[float] | np.ndarray) -> str:
    """Return the first and the last finite value in words."""
    found = [value for value in values if math.isfinite(value)]
    return f"from {found[0]:.3g} to {found[-1]:.3g}" if found else "without a number"

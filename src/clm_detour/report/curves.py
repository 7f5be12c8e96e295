"""Charts over tokens: the phases of all arms one after another, with what arms share drawn once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from clm_detour.figures.axes import Tokens, Values
from clm_detour.figures.lines import Line, LineChart
from clm_detour.report.run import Curve, Phase, Run

MOST_POINTS = 400  # of a line: more than a screen shows, and few enough for a small page


def loss_chart(run: Run, phases: Sequence[Phase], enlarged: bool = False) -> LineChart:
    """Return a chart of the training loss: every logged step pale, and the running mean strong.

    Args:
        enlarged: Whether the axis begins at the first of these phases instead of the start of the run.
    """
    lines = [curve_line(run, phase, curve, curve.loss) for phase, curve in logged(phases)]
    first = min(run.start_token(phase.id) for phase in phases) if enlarged else 0
    return over_tokens(run, phases, lines, Values("loss (nats)", ".1f", ".3f"), first, smoothing="medium")


def learning_rate_chart(run: Run, phases: Sequence[Phase]) -> LineChart:
    """Return a chart of the learning rate."""
    lines = [curve_line(run, phase, curve, curve.learning_rate) for phase, curve in logged(phases)]
    return over_tokens(run, phases, lines, Values("learning rate", "~g", ".3~g"), from_zero=True)


def watched_chart(run: Run, phases: Sequence[Phase], causal: bool) -> LineChart:
    """Return a chart of the held-out loss during training, as a causal or as a masked language model."""
    lines = []
    for phase in phases:
        if phase.watched:
            start = run.start_token(phase.id)
            losses = phase.watched.causal if causal else phase.watched.masked
            tokens = [start + tokens for tokens in phase.watched.tokens]
            lines.append(Line(tokens, losses, run.first_arm(phase.id), part=phase.id))
    return over_tokens(run, phases, lines, Values("loss (nats)", ".1f", ".3f"), points=True)


def speed_chart(run: Run, phases: Sequence[Phase]) -> LineChart:
    """Return a chart of tokens a second."""
    lines = [curve_line(run, phase, curve, curve.tokens_per_second) for phase, curve in logged(phases)]
    axis = Values("tokens per second", "~s", ".3~s")
    return over_tokens(run, phases, lines, axis, from_zero=True, smoothing="medium")


def curve_line(run: Run, phase: Phase, curve: Curve, values: np.ndarray) -> Line:
    """Return the logged values of a phase over the tokens since the start of its first arm."""
    tokens, values = thinned(curve.tokens, values, MOST_POINTS)
    return Line(run.start_token(phase.id) + tokens, values, run.first_arm(phase.id), part=phase.id)


def over_tokens(
    run: Run, phases: Sequence[Phase], lines: Sequence[Line], y: Values, first: float = 0, **settings: Any
) -> LineChart:
    """Return a chart over all tokens of the run, with the phases' borders and the names of `phases`."""
    ends = {phase.id: run.start_token(phase.id) + phase.tokens for phase in run.phases.values()}
    last = max([*ends.values(), 1])
    names: dict[tuple[int, int], dict[str, None]] = {}
    for phase in phases:
        names.setdefault((run.start_token(phase.id), ends[phase.id]), {})[phase.name] = None
    spans = [(*span, " / ".join(without_variants(found))) for span, found in names.items()]
    borders = sorted(set(ends.values()) - {last})
    axis = Tokens(last, first, [border for border in borders if border > first], spans)
    return LineChart(lines, slots(run, phases), axis, y, **settings)


def logged(phases: Sequence[Phase]) -> list[tuple[Phase, Curve]]:
    """Return the phases that have logged a step, with their curves."""
    return [(phase, phase.curve) for phase in phases if phase.curve]


def slots(run: Run, phases: Sequence[Phase]) -> dict[str, str]:
    """Return the arms that the phases' colors stand for, with the names of the colors."""
    return run.color_slots(run.first_arm(phase.id) for phase in phases)


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


def describe(phases: Sequence[Phase], read: Callable[[Curve], np.ndarray]) -> str:
    """Return the first and last value of each phase in words, for those who do not see the figure."""
    return "; ".join(f"{phase.id} {first_to_last(read(curve))}" for phase, curve in logged(phases))


def first_to_last(values: Sequence[float] | np.ndarray) -> str:
    """Return the first and the last finite value in words."""
    found = [value for value in values if math.isfinite(value)]
    return f"from {found[0]:.3g} to {found[-1]:.3g}" if found else "without a number"

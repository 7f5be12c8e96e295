"""Charts over tokens: the phases of all arms one after another, with what arms share drawn once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from clm_detour.figures.canvas import COLORS
from clm_detour.figures.charts import Line, LineChart
from clm_detour.report.run import Curve, Phase, Run
from clm_detour.utils.progress import human

LOGGED_POINTS = 1000  # at most in a pale curve: more than a screen has pixels in its width
MEAN_POINTS = 300  # at most in a running mean
MEAN_SHARE = 0.04  # of a phase's logged steps go into one point of the running mean,
MEAN_LEAST = 5  # but at least so many,
MEAN_FROM = 20  # where a phase has so many logged steps; fewer are shown without a mean


def loss_chart(run: Run, phases: Sequence[Phase], enlarged: bool = False) -> LineChart:
    """Return a chart of the training loss: every logged step pale, and the running mean strong.

    Args:
        enlarged: Whether the axis begins at the first of these phases instead of the start of the run.
    """
    lines = []
    for phase, curve in logged(phases):
        start, color = run.start_token(phase.id), phase_color(run, phase)
        tokens, losses = thinned(curve.tokens, curve.loss, LOGGED_POINTS)
        lines.append(Line(start + tokens, losses, color, width=0.7, opacity=0.35))
        tokens, means = running_mean(curve)
        lines.append(Line(start + tokens, means, color))
    first = min(run.start_token(phase.id) for phase in phases) if enlarged else 0
    return over_tokens(run, phases, lines, first=first)


def learning_rate_chart(run: Run, phases: Sequence[Phase]) -> LineChart:
    """Return a chart of the learning rate.

    Of phases over the same tokens, the later line is thinner, so that all are seen.
    """
    lines = []
    for phase, curve in logged(phases):
        start = run.start_token(phase.id)
        beside = [other.id for other in phases if run.start_token(other.id) == start]
        tokens, rate = thinned(curve.tokens, curve.learning_rate, MEAN_POINTS)
        width = 1.5 + 3 * (len(beside) - 1 - beside.index(phase.id))
        lines.append(
            Line(start + tokens, rate, phase_color(run, phase), width=width, dashed=phase.objective == "clm")
        )
    return over_tokens(run, phases, lines, from_zero=True, y_ticks=5, y_format="{:g}".format)


def watched_chart(run: Run, phases: Sequence[Phase], causal: bool) -> LineChart:
    """Return a chart of the held-out loss during training, as a causal or as a masked language model."""
    lines = []
    for phase in phases:
        if phase.watched:
            start = run.start_token(phase.id)
            losses = phase.watched.causal if causal else phase.watched.masked
            tokens = [start + tokens for tokens in phase.watched.tokens]
            lines.append(Line(tokens, losses, phase_color(run, phase), marker=3))
    return over_tokens(run, phases, lines)


def speed_chart(run: Run, phases: Sequence[Phase]) -> LineChart:
    """Return a chart of tokens a second, averaged over neighboring steps."""
    lines = []
    for phase, curve in logged(phases):
        tokens, speed = thinned(curve.tokens, curve.tokens_per_second, MEAN_POINTS // 6)
        lines.append(Line(run.start_token(phase.id) + tokens, speed, phase_color(run, phase)))
    return over_tokens(run, phases, lines, from_zero=True, y_format=human)


def over_tokens(run: Run, phases: Sequence[Phase], lines: Sequence[Line], **settings: Any) -> LineChart:
    """Return a chart over all tokens of the run, with the phases' borders and the names of `phases`."""
    ends = {phase.id: run.start_token(phase.id) + phase.tokens for phase in run.phases.values()}
    last = max([*ends.values(), 1])
    names: dict[tuple[int, int], dict[str, None]] = {}
    for phase in phases:
        names.setdefault((run.start_token(phase.id), ends[phase.id]), {})[phase.name] = None
    spans = [(*span, " / ".join(without_variants(found))) for span, found in names.items()]
    borders = sorted(set(ends.values()) - {last})
    return LineChart(lines, last=last, borders=borders, spans=spans, **settings)


def logged(phases: Sequence[Phase]) -> list[tuple[Phase, Curve]]:
    """Return the phases that have logged a step, with their curves."""
    return [(phase, phase.curve) for phase in phases if phase.curve]


def slots(run: Run, phases: Sequence[Phase]) -> dict[str, str]:
    """Return the arms that the phases' colors stand for, with the names of the colors."""
    return run.color_slots(run.first_arm(phase.id) for phase in phases)


def phase_color(run: Run, phase: Phase) -> str:
    """Return the color of the first arm that has the phase."""
    return COLORS[run.color_slot(run.first_arm(phase.id))]


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


def running_mean(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Return a centered mean of the loss, narrower at the ends and without values that are not finite."""
    steps = len(curve.loss)
    window = max(MEAN_LEAST, 2 * (int(steps * MEAN_SHARE) // 2) + 1) if steps >= MEAN_FROM else 1
    finite = np.isfinite(curve.loss)
    weights = np.convolve(finite.astype(float), np.ones(window), mode="same")
    sums = np.convolve(np.where(finite, curve.loss, 0.0), np.ones(window), mode="same")
    means = np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0)
    return thinned(curve.tokens, means, MEAN_POINTS)


def describe(phases: Sequence[Phase], read: Callable[[Curve], np.ndarray]) -> str:
    """Return the first and last value of each phase in words, for those who do not see the figure."""
    return "; ".join(f"{phase.id} {first_to_last(read(curve))}" for phase, curve in logged(phases))


def first_to_last(values: Sequence[float] | np.ndarray) -> str:
    """Return the first and the last finite value in words."""
    found = [value for value in values if math.isfinite(value)]
    return f"from {found[0]:.3g} to {found[-1]:.3g}" if found else "without a number"

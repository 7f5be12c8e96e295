"""Curves over tokens: the phases of all arms one after another, what they share once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from clm_detour.report.arms import colour_slot, colour_slots, first_arm, start_token
from clm_detour.report.plots import COLOURS, FAINT, draw
from clm_detour.report.records import Curve, Phase, Run
from clm_detour.utils.progress import human

LOGGED_POINTS = 1000  # at most in a pale curve: more than a screen has pixels in its width
MEAN_POINTS = 300  # at most in a strong one
MEAN_SHARE = 0.04  # of a phase's logged steps go into one point of the running mean, but at least
MEAN_LEAST = 5  # steps, where a phase has
MEAN_FROM = 20  # or more; fewer are shown as they are
UNITS = ((1e12, "trillions"), (1e9, "billions"), (1e6, "millions"), (1e3, "thousands"))
HEIGHT = 2.9


def loss_figure(run: Run, phases: Sequence[Phase], name: str, label: str, enlarged: bool = False) -> Markup:
    """Training loss: every logged step pale, their running mean strong; `enlarged` to these phases' tokens."""

    def paint(axes: Axes) -> None:
        for phase, curve in logged(phases):
            start, colour = start_token(run, phase.id), phase_colour(run, phase)
            pale, mean = thinned(curve.tokens, curve.loss, LOGGED_POINTS), running_mean(curve)
            axes.plot(start + pale[0], pale[1], color=colour, linewidth=0.7, alpha=0.35)
            axes.plot(start + mean[0], mean[1], color=colour, linewidth=1.6)
        over_tokens(axes, run, phases)
        if enlarged:
            axes.set_xlim(left=min(start_token(run, phase.id) for phase in phases))

    return draw(name, label, HEIGHT, paint, slots(run, phases))


def learning_rate_figure(run: Run, phases: Sequence[Phase], name: str, label: str) -> Markup:
    """Learning rate; of phases over the same tokens the later is drawn thinner, so that all are seen."""

    def paint(axes: Axes) -> None:
        for phase, curve in logged(phases):
            start = start_token(run, phase.id)
            beside = [other.id for other in phases if start_token(run, other.id) == start]
            tokens, rate = thinned(curve.tokens, curve.learning_rate, MEAN_POINTS)
            axes.plot(
                start + tokens,
                rate,
                color=phase_colour(run, phase),
                linewidth=1.5 + 3 * (len(beside) - 1 - beside.index(phase.id)),
                linestyle=(0, (4, 2)) if phase.objective == "clm" else "-",
                solid_capstyle="butt",
            )
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        over_tokens(axes, run, phases)

    return draw(name, label, HEIGHT, paint, slots(run, phases))


def logged(phases: Sequence[Phase]) -> list[tuple[Phase, Curve]]:
    """The phases that have something to draw."""
    return [(phase, phase.curve) for phase in phases if phase.curve]


def slots(run: Run, phases: Sequence[Phase]) -> dict[str, str]:
    """The arms that the phases' colours stand for."""
    return colour_slots(run, (first_arm(run, phase.id) for phase in phases))


def phase_colour(run: Run, phase: Phase) -> str:
    """The colour of the first arm that has the phase."""
    return COLOURS[colour_slot(run, first_arm(run, phase.id))]


def over_tokens(axes: Axes, run: Run, phases: Sequence[Phase]) -> None:
    """The axis of tokens, all of the run, with the phases' borders and the names of those drawn."""
    ends = {phase.id: start_token(run, phase.id) + phase.tokens for phase in run.phases.values()}
    last = max([*ends.values(), 1])
    token_axis(axes, last)
    for border in sorted(set(ends.values()) - {last}):
        axes.axvline(border, color=FAINT, linewidth=1)
    spans: dict[tuple[int, int], dict[str, None]] = {}
    for phase in phases:
        spans.setdefault((start_token(run, phase.id), ends[phase.id]), {})[phase.name] = None
    for (start, end), names in spans.items():
        across = axes.get_xaxis_transform()
        axes.text(
            (start + end) / 2,
            1.02,
            " / ".join(without_variants(names)),
            transform=across,
            ha="center",
            va="bottom",
        )


def token_axis(axes: Axes, last: int) -> None:
    """From 0 to the last token, in a unit that suits it."""
    axes.set_xlim(0, 1.01 * last)
    scale, word = next(((size, word) for size, word in UNITS if last >= size), (1.0, ""))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale:g}"))
    axes.set_xlabel(f"tokens trained ({word})" if word else "tokens trained")


def watched_figure(run: Run, phases: Sequence[Phase], name: str, label: str, causal: bool) -> Markup:
    """Held-out loss while the phases trained, as a causal or as a masked language model."""

    def paint(axes: Axes) -> None:
        for phase in phases:
            if phase.watched:
                start = start_token(run, phase.id)
                losses = phase.watched.causal if causal else phase.watched.masked
                tokens = [start + tokens for tokens in phase.watched.tokens]
                axes.plot(
                    tokens, losses, color=phase_colour(run, phase), linewidth=1.6, marker="o", markersize=3
                )
        over_tokens(axes, run, phases)

    return draw(name, label, HEIGHT, paint, slots(run, phases))


def speed_figure(run: Run, phases: Sequence[Phase], name: str, label: str) -> Markup:
    """Tokens a second, averaged over neighbouring steps."""

    def paint(axes: Axes) -> None:
        for phase, curve in logged(phases):
            tokens, speed = thinned(curve.tokens, curve.tokens_per_second, MEAN_POINTS // 6)
            axes.plot(
                start_token(run, phase.id) + tokens, speed, color=phase_colour(run, phase), linewidth=1.6
            )
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: human(value)))
        over_tokens(axes, run, phases)

    return draw(name, label, HEIGHT, paint, slots(run, phases))


def without_variants(names: Collection[str]) -> list[str]:
    """Phases' names that fit beside each other: `mlm` stands for `mlm_control` too."""
    return [name for name in names if not any(name.startswith(f"{other}_") for other in names)]


def thinned(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points: means over equal bins of neighbours, the last point kept."""
    if len(x) <= most:
        return x, y
    bins = np.array_split(np.arange(len(x) - 1), most - 1)
    return join_last(x, bins), join_last(y, bins)


def join_last(values: np.ndarray, bins: Sequence[np.ndarray]) -> np.ndarray:
    """The means of the bins, then the last value."""
    return np.array([*(values[part].mean() for part in bins), values[-1]])


def running_mean(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Centred mean of the loss, narrower at the ends; what is not finite is left out."""
    steps = len(curve.loss)
    window = max(MEAN_LEAST, 2 * (int(steps * MEAN_SHARE) // 2) + 1) if steps >= MEAN_FROM else 1
    finite = np.isfinite(curve.loss)
    weights = np.convolve(finite.astype(float), np.ones(window), mode="same")
    sums = np.convolve(np.where(finite, curve.loss, 0.0), np.ones(window), mode="same")
    means = np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0)
    return thinned(curve.tokens, means, MEAN_POINTS)


def describe(phases: Sequence[Phase], read: Callable[[Curve], np.ndarray]) -> str:
    """First and last value of each phase, for those who do not see the figure."""
    return "; ".join(f"{phase.id} {first_to_last(read(curve))}" for phase, curve in logged(phases))


def first_to_last(values: Sequence[float] | np.ndarray) -> str:
    """Return the first and the last that are numbers, in words."""
    found = [value for value in values if math.isfinite(value)]
    return f"from {found[0]:.3g} to {found[-1]:.3g}" if found else "without a number"

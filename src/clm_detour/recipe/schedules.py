"""Learning rates as pure functions of the tokens seen in a phase.

The rate of a step is that of the tokens seen *before* the step. Composer advances its schedulers before its
clock, so they lag by one step; `train/callbacks/step_start.py` therefore sets the rate at the start of each
step.

Tokens are counted from the start of the phase. `floor` is the rate at the end of a decay, as a share of the
peak; the rate stays there afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from clm_detour.config.schema import Phase
from clm_detour.config.units import parse_tokens

RateFunction = Callable[[int], float]


def warmup_constant(peak: float, warmup: int) -> RateFunction:
    """Return a rate that rises linearly from 0 to `peak` over `warmup` tokens, then stays constant."""

    def rate(tokens: int) -> float:
        return peak if tokens >= warmup else peak * tokens / warmup

    return rate


def one_minus_sqrt(peak: float, floor: float, duration: int) -> RateFunction:
    """Return the 1-sqrt decay (arXiv 2605.12438): peak * (a + (1 - a) * (1 - sqrt(t / T))).

    Here a is `floor`, and T is `duration` in tokens.
    """

    def rate(tokens: int) -> float:
        return peak * (floor + (1 - floor) * (1 - math.sqrt(min(tokens / duration, 1.0))))

    return rate


def wsd(peak: float, warmup: int, decay: int, floor: float, duration: int) -> RateFunction:
    """Return warmup-stable-decay (arXiv 2404.06395): `one_minus_sqrt` over the last `decay` tokens."""
    stable, falling = warmup_constant(peak, warmup), one_minus_sqrt(peak, floor, decay)

    def rate(tokens: int) -> float:
        start = duration - decay
        return stable(tokens) if tokens < start else falling(tokens - start)

    return rate


def cosine(peak: float, warmup: int, floor: float, duration: int) -> RateFunction:
    """Return a warm-up, then half a cosine from `peak` to `floor` * `peak` (arXiv 1608.03983)."""
    return _after_warmup(peak, warmup, floor, duration, lambda done: (1 + math.cos(math.pi * done)) / 2)


def linear(peak: float, warmup: int, floor: float, duration: int) -> RateFunction:
    """Return a warm-up, then a straight line from `peak` to `floor` * `peak`."""
    return _after_warmup(peak, warmup, floor, duration, lambda done: 1 - done)


def _after_warmup(
    peak: float, warmup: int, floor: float, duration: int, decay: Callable[[float], float]
) -> RateFunction:
    """Return a warm-up, then peak * (floor + (1 - floor) * decay(x)), where x goes from 0 to 1."""
    rising = warmup_constant(peak, warmup)

    def rate(tokens: int) -> float:
        if tokens < warmup:
            return rising(tokens)
        done = min((tokens - warmup) / max(duration - warmup, 1), 1.0)
        return peak * (floor + (1 - floor) * decay(done))

    return rate


def phase_rate(phase: Phase) -> RateFunction:
    """Return the learning rate of a phase as a function of the tokens seen in it."""
    schedule, duration = phase.schedule, parse_tokens(phase.duration, "duration")
    peak, floor, warmup = schedule.peak, schedule.floor, parse_tokens(schedule.warmup, "warmup")
    if schedule.name == "warmup_constant":
        return warmup_constant(peak, warmup)
    if schedule.name == "one_minus_sqrt":
        return one_minus_sqrt(peak, floor, duration)
    if schedule.name == "wsd":
        return wsd(peak, warmup, parse_tokens(schedule.decay, "decay"), floor, duration)
    return {"cosine": cosine, "linear": linear}[schedule.name](peak, warmup, floor, duration)

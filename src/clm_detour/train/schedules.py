"""Learning rates as pure functions of the tokens seen in a phase.

The rate of a step is that of the tokens seen *before* it. Composer steps its schedulers before it advances its clock, so
theirs lag by one step; `callbacks/learning_rate.py` therefore sets the rate at the start of each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from clm_detour.config.schema import Phase
from clm_detour.config.units import parse_tokens

RateFunction = Callable[[int], float]


def warmup_constant(peak: float, warmup: int) -> RateFunction:
    """Linear from 0 to `peak` over `warmup` tokens, then constant."""

    def rate(tokens: int) -> float:
        return peak if tokens >= warmup else peak * tokens / warmup

    return rate


def one_minus_sqrt(peak: float, floor: float, duration: int) -> RateFunction:
    """peak * (a + (1 - a) * (1 - sqrt(t / T))) with a = `floor` and T = `duration` in tokens (arXiv 2605.12438)."""

    def rate(tokens: int) -> float:
        return peak * (floor + (1 - floor) * (1 - math.sqrt(min(tokens / duration, 1.0))))

    return rate


def phase_rate(phase: Phase) -> RateFunction:
    """The learning rate of `phase` as a function of the tokens seen in it."""
    schedule = phase.schedule
    if schedule.name == "warmup_constant":
        return warmup_constant(schedule.peak, parse_tokens(schedule.warmup, "warmup"))
    return one_minus_sqrt(schedule.peak, schedule.floor, parse_tokens(phase.duration, "duration"))

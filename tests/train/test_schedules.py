"""The learning rate is the formula, at every token."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_detour.train.schedules import one_minus_sqrt, warmup_constant


@given(st.integers(1, 10**9), st.integers(0, 10**10))
def test_warmup_is_linear_then_constant(warmup, tokens):
    assert warmup_constant(2e-4, warmup)(tokens) == pytest.approx(2e-4 * min(tokens / warmup, 1.0), abs=1e-18)


def test_without_warmup_the_first_step_has_the_peak():
    assert warmup_constant(2e-4, 0)(0) == 2e-4


@given(st.integers(1, 10**10), st.floats(0, 1))
def test_one_minus_sqrt_goes_from_the_peak_to_the_floor(duration, floor):
    rate = one_minus_sqrt(2e-4, floor, duration)
    assert rate(0) == pytest.approx(2e-4)
    assert rate(duration) == pytest.approx(2e-4 * floor)
    assert rate(duration + 10**6) == rate(duration)
    half = duration / 4
    assert rate(half) == pytest.approx(2e-4 * (floor + (1 - floor) * (1 - math.sqrt(0.25))))


def test_the_papers_decay_ends_at_a_tenth():
    assert one_minus_sqrt(2e-4, 0.1, 5 * 10**9)(5 * 10**9) == pytest.approx(2e-5)

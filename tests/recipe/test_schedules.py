"""The learning rate is the formula, at every token."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_detour.config.schema import Phase, Schedule
from clm_detour.recipe.schedules import cosine, linear, one_minus_sqrt, phase_rate, warmup_constant, wsd


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


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 4 * 10**6))
def test_wsd_is_a_warmup_a_constant_and_a_decay_end_to_end(warmup, stable, decay, tokens):
    start = warmup + stable
    rate = wsd(2e-4, warmup, decay, 0.1, start + decay)
    if tokens < start:
        assert rate(tokens) == warmup_constant(2e-4, warmup)(tokens)
    else:
        assert rate(tokens) == one_minus_sqrt(2e-4, 0.1, decay)(tokens - start)


@pytest.mark.parametrize(("schedule", "middle"), [(cosine, 0.5), (linear, 0.5)])
@given(st.integers(0, 10**6), st.integers(1, 10**6), st.floats(0, 1))
def test_cosine_and_linear_go_from_the_peak_to_the_floor_after_the_warmup(
    schedule, middle, warmup, half, floor
):
    end = warmup + 2 * half
    rate = schedule(2e-4, warmup, floor, end)
    assert rate(warmup // 2) <= rate(warmup) == pytest.approx(2e-4)
    assert rate(warmup + half) == pytest.approx(2e-4 * (floor + (1 - floor) * middle))
    assert rate(end) == rate(end + 1000) == pytest.approx(2e-4 * floor)


def test_a_quarter_of_the_way_cosine_is_above_linear():
    assert cosine(1.0, 0, 0.0, 100)(25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert linear(1.0, 0, 0.0, 100)(25) == pytest.approx(0.75)


@pytest.mark.parametrize("name", ["warmup_constant", "one_minus_sqrt", "wsd", "cosine", "linear"])
def test_a_phase_has_the_rate_that_its_schedule_names(name):
    schedule = Schedule(name, 2e-4, warmup="10tok", decay="30tok", floor=0.2)
    rate = phase_rate(Phase("mlm", "domain", "100tok", schedule, 0.3))
    expected = {
        "warmup_constant": warmup_constant(2e-4, 10),
        "one_minus_sqrt": one_minus_sqrt(2e-4, 0.2, 100),
        "wsd": wsd(2e-4, 10, 30, 0.2, 100),
        "cosine": cosine(2e-4, 10, 0.2, 100),
        "linear": linear(2e-4, 10, 0.2, 100),
    }[name]
    assert [rate(tokens) for tokens in range(0, 120, 7)] == [expected(tokens) for tokens in range(0, 120, 7)]

"""Verdicts keep their error rates and their planned power, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from clm_detour.ledger.verdict import MOST_SEEDS, POWER, Rule, chances, decide, margin_of, seeds_to_decide

DRAWS = 20_000
LEVEL = 0.025  # of each one-sided test
SIGNS = ("more", "less")
ALL = (*SIGNS, "equal", "not_less", "not_more")


def drawn(effect: float, seeds: int, deviation: float = 1.0, draws: int = DRAWS) -> np.ndarray:
    return np.random.default_rng(seeds).normal(effect, deviation, (draws, seeds))


def at_most(share: float, draws: int = DRAWS) -> float:
    """Return the share that is exceeded once in thirty thousand times if the true share is `share`."""
    return share + 4 * (share * (1 - share) / draws) ** 0.5


def rule(expect: str, smallest: float = 0.5, equivalence: float = 0.5) -> Rule:
    return Rule(expect, smallest, equivalence)


@pytest.mark.parametrize("expect", ALL)
def test_one_seed_decides_nothing(expect):
    assert not decide(drawn(0.0, 1, deviation=100), rule(expect)).any()
    assert decide([5.0], rule(expect)) == 0


@pytest.mark.parametrize("expect", ALL)
def test_equal_seeds_decide_nothing_since_their_noise_is_not_known(expect):
    assert decide([3.1, 3.1, 3.1], rule(expect)) == 0


@pytest.mark.parametrize("expect", SIGNS)
@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
@pytest.mark.parametrize("smallest", [1e-6, 0.5])
def test_an_effect_that_is_not_there_is_supported_at_no_more_than_the_nominal_rate(expect, seeds, smallest):
    supported = (decide(drawn(0.0, seeds), rule(expect, smallest)) == 1).mean()
    assert supported <= at_most(LEVEL)
    if smallest < 0.1:  # without the smallest effect the rate is the nominal one
        assert supported >= LEVEL - 4 * (LEVEL / DRAWS) ** 0.5


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
@pytest.mark.parametrize(
    ("expect", "effect"),
    [("more", 0.5), ("less", -0.5), ("equal", 0.5), ("equal", -0.5), ("not_less", -0.5), ("not_more", 0.5)],
)
def test_a_claim_that_is_just_true_is_refuted_at_no_more_than_the_nominal_rate(expect, effect, seeds):
    refuted = (decide(drawn(effect, seeds), rule(expect)) == -1).mean()
    assert refuted <= at_most(LEVEL)
    assert refuted >= LEVEL - 4 * (LEVEL / DRAWS) ** 0.5


@pytest.mark.parametrize("seeds", [3, 20])
@pytest.mark.parametrize(("expect", "effect"), [("equal", 0.5), ("not_less", -0.5), ("not_more", 0.5)])
def test_a_claim_that_is_just_false_is_supported_at_no_more_than_the_nominal_rate(expect, effect, seeds):
    assert (decide(drawn(effect, seeds, 0.3), rule(expect)) == 1).mean() <= at_most(LEVEL)


@pytest.mark.parametrize(
    ("expect", "effect", "deviation", "verdict"),
    [
        ("more", 1.0, 1.0, 1),
        ("less", -0.9, 0.5, 1),
        ("more", 0.0, 1.0, -1),
        ("more", -0.4, 2.0, -1),
        ("equal", 0.1, 0.4, 1),
        ("equal", 1.0, 0.4, -1),
        ("not_less", 0.0, 0.8, 1),
        ("not_more", 1.2, 0.8, -1),
    ],
)
def test_the_planned_number_of_seeds_finds_a_planted_effect_with_the_planned_power(
    expect, effect, deviation, verdict
):
    seeds = seeds_to_decide(2, effect, deviation, rule(expect))
    assert seeds is not None
    found = (decide(drawn(effect, seeds, deviation), rule(expect)) == verdict).mean()
    tolerance = at_most(POWER) - POWER
    assert found >= POWER - LEVEL - tolerance
    if seeds > 3:  # one seed fewer is not enough
        fewer = decide(drawn(effect, seeds - 1, deviation), rule(expect))
        assert (fewer != 0).mean() < POWER + tolerance


@pytest.mark.parametrize("expect", ALL)
@pytest.mark.parametrize(("seeds", "effect"), [(3, 0.4), (6, -0.6), (12, 0.0)])
def test_computed_chances_are_those_of_the_simulation(expect, seeds, effect):
    supported, refuted = chances(seeds, effect, 0.7, rule(expect))
    verdicts = decide(drawn(effect, seeds, 0.7), rule(expect))
    assert (verdicts == 1).mean() == pytest.approx(supported, abs=0.016)
    assert (verdicts == -1).mean() == pytest.approx(refuted, abs=0.016)


def test_an_effect_at_a_bound_takes_more_seeds_than_are_counted():
    assert seeds_to_decide(3, 0.499, 1.0, rule("more")) is None
    assert seeds_to_decide(3, 0.3, 1.0, rule("more")) <= MOST_SEEDS


def test_the_interval_is_that_of_student():
    # Mean 2, deviation 1, three seeds: t = 4.3027 with two degrees of freedom.
    assert margin_of([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / 3**0.5)


def test_no_verdict_is_both():
    effects = np.random.default_rng(0).normal(0, 1, (DRAWS, 4)) * np.logspace(-3, 3, DRAWS)[:, None]
    for expect in ALL:
        assert set(np.unique(decide(effects, rule(expect)))) <= {-1, 0, 1}
        supported, refuted = rule(expect).spans(margin_of(effects))
        for low, high in refuted:
            assert (np.maximum(low, supported[0]) > np.minimum(high, supported[1])).all()

"""The statistics of an audit: rank and exposure of secrets, and membership of rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from clm_detour.audit.membership import FEWEST, auc, membership
from clm_detour.audit.rows import in_shares
from clm_detour.audit.secrets import chance, rank
from clm_detour.audit.tables import membership_table
from clm_detour.records.audit import (
    MASKS,
    AuditedCanaries,
    AuditedModel,
    AuditRecord,
    AuditSettings,
    MaskResult,
    Membership,
)

ALTERNATIVES = 1023


def test_chance_is_the_mean_exposure_of_random_ranks():
    rng = np.random.default_rng(0)
    exposures = [rank(rng.random(1 + ALTERNATIVES))[1] for _ in range(2000)]
    assert chance(ALTERNATIVES) == pytest.approx(math.log2(math.e), abs=0.01)
    assert np.mean(exposures) == pytest.approx(chance(ALTERNATIVES), abs=4 * np.std(exposures) / 2000**0.5)


def test_a_model_that_cannot_tell_secrets_apart_has_the_rank_and_the_exposure_of_chance():
    place, exposure = rank(np.full(1 + ALTERNATIVES, -3.5))
    assert place == (1 + 1 + ALTERNATIVES) / 2
    assert exposure == chance(ALTERNATIVES)


def test_a_secret_that_is_known_by_heart_has_the_highest_exposure():
    scores = np.arange(1 + ALTERNATIVES, 0, -1.0)
    assert rank(scores) == (1.0, 10.0)
    assert rank(scores[::-1]) == (1 + ALTERNATIVES, 0.0)


def test_scores_that_are_not_finite_have_no_rank():
    assert all(map(math.isnan, rank(np.array([math.nan, 0.0, 1.0]))))
    assert all(map(math.isnan, rank(np.array([0.0, math.nan, 1.0]))))


def test_the_auc_is_that_of_scikit_learn_with_ties():
    rng = np.random.default_rng(1)
    members, others = rng.integers(0, 9, 80) + 1.0, rng.integers(0, 9, 50) + 0.0
    expected = roc_auc_score([1] * 80 + [0] * 50, [*members, *others])
    area, (low, high) = auc(members, others)
    assert area == pytest.approx(expected)
    assert low < area < high


def test_the_variance_of_the_auc_is_that_of_the_definition():
    rng = np.random.default_rng(2)
    members, others = rng.normal(0.5, 1, 40), rng.normal(0, 1, 60)
    wins = members[:, None] > others[None]
    error = math.sqrt(wins.mean(1).var(ddof=1) / 40 + wins.mean(0).var(ddof=1) / 60)
    area, (low, high) = auc(members, others)
    assert (high - low) / 2 == pytest.approx(1.959964 * error)
    assert area == pytest.approx(wins.mean())


@pytest.mark.parametrize(("members", "area"), [([3.0, 4.0], 1.0), ([0.0, 1.0], 0.0)])
def test_rows_that_are_told_apart_without_an_error_have_no_interval(members, area):
    assert auc(np.array(members), np.array([2.0, 2.5])) == (area, None)
    assert auc(np.ones(3), np.ones(5)) == (0.5, None)


def test_intervals_hold_one_half_at_the_nominal_rate_if_membership_is_shuffled():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=300)
    inside = 0
    for _ in range(400):
        rng.shuffle(scores)
        low, high = auc(scores[:150], scores[150:])[1]
        inside += low <= 0.5 <= high
    assert 0.92 < inside / 400 < 0.98


def test_the_share_found_at_a_low_rate_of_errors_needs_a_thousand_non_members():
    rng = np.random.default_rng(4)
    members = np.concatenate([np.full(30, 99.0), rng.random(70)])
    few = membership(members, rng.random(FEWEST - 1))
    assert (few.tpr, few.tpr_interval) == (None, None)
    others = np.concatenate([[100.0], rng.random(FEWEST - 1)])  # one is allowed above all members
    found = membership(members, others)
    assert found.tpr == 0.3
    assert found.tpr_interval == pytest.approx((0.2124, 0.3998), abs=1e-4)  # Clopper-Pearson of 30 in 100


def test_losses_that_are_not_finite_give_no_result():
    found = membership(np.array([math.nan, 1.0]), np.zeros(FEWEST))
    assert math.isnan(found.auc)
    assert found.interval is found.tpr is None


def test_the_statistics_of_a_ledger_take_the_mask_that_gives_more():
    copies = [0, 1, 16, 64]
    masks = {
        "bidirectional": MaskResult(
            ranks=[9.0] * 4, exposures=[1.0, 2.0, 3.0, 4.0], membership={"base": membership_of(0.6)}
        ),
        "causal": MaskResult(
            ranks=[9.0] * 4, exposures=[9.0, 9.0, 2.0, 4.0], membership={"base": membership_of(0.7)}
        ),
    }
    model = AuditedModel(id="clm.decay", arms=["detour"], last_of=["detour"], copies_read=copies, masks=masks)
    settings = AuditSettings(
        rows=1, tokens=1, alternatives=9, mask_rate=0.15, passes=1, precision="fp32", seed=0
    )
    canaries = AuditedCanaries(source="notes", copies=copies, chance=1.2)
    record = AuditRecord(settings=settings, canaries=canaries, base=None, models=[model])
    assert record.exposure("detour") == 3.5
    assert record.membership_auc("detour") == pytest.approx(70)
    assert record.exposure("twin") is record.membership_auc("twin") is None


def test_texts_that_are_found_by_the_loss_alone_are_not_called_found_against_the_base():
    alone = Membership(auc=0.6, interval=None, tpr=0.25, tpr_interval=(0.2, 0.3))
    against = Membership(auc=0.7, interval=None, tpr=0.5, tpr_interval=(0.4, 0.6))

    def model(id: str, **membership: Membership) -> AuditedModel:
        return AuditedModel(id=id, arms=["a"], masks=dict.fromkeys(MASKS, MaskResult(membership=membership)))

    settings = AuditSettings(
        rows=1, tokens=1, alternatives=9, mask_rate=0.15, passes=1, precision="fp32", seed=0
    )
    models = [model("base", none=alone), model("clm", none=alone, base=against)]
    record = AuditRecord(settings=settings, canaries=None, base="base", models=models)
    table = membership_table(record, lambda each: each.id)
    assert "(against the base)" in table.notes[0]
    assert [row.cells[-1].text[:2] for row in table.rows] == ["–", "–", "50", "50"]


def membership_of(area: float) -> Membership:
    return Membership(auc=area, interval=(0.0, 1.0))


SOURCES = st.dictionaries(
    st.sampled_from("abcd"), st.tuples(st.integers(1, 1000), st.integers(1, 300)), min_size=1
)


@given(SOURCES, st.integers(1, 1000))
def test_sources_have_their_shares_as_far_as_they_have_rows(sources, count):
    weights = {name: weight for name, (weight, _) in sources.items()}
    there = {name: rows for name, (_, rows) in sources.items()}
    taken = in_shares(weights, there, count)
    assert sum(taken.values()) == min(count, sum(there.values()))
    assert all(taken[name] <= there[name] for name in sources)
    if all(rows >= count for rows in there.values()):
        total = sum(weights.values())
        assert all(abs(taken[name] - count * weights[name] / total) <= len(sources) for name in sources)

"""The stream's order: exact shares at every prefix, a fresh permutation each epoch, nothing but arithmetic."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_detour.data.mixture import Mixture, permute
from clm_detour.errors import UserError

weights = st.lists(st.integers(1, 60), min_size=1, max_size=7)


def make(shares: list[float], rows: list[int], seed: int = 42) -> Mixture:
    names = [f"s{i}" for i in range(len(shares))]
    return Mixture(dict(zip(names, shares, strict=True)), dict(zip(names, rows, strict=True)), seed)


@settings(max_examples=40, deadline=None)
@given(weights, st.integers(1, 600))
def test_every_prefix_holds_each_share_to_within_one_row(shares, length):
    mixture = make(shares, [50] * len(shares))
    drawn = Counter()
    for position in range(length):
        drawn[mixture.locate(position).source] += 1
        for name, share in mixture.shares.items():
            assert abs(drawn[name] - share * (position + 1)) < 1
    assert mixture.counts(0, length) == {name: drawn[name] for name in mixture.names}


@settings(max_examples=40, deadline=None)
@given(weights, st.data())
def test_no_row_repeats_within_an_epoch_and_every_row_comes(shares, data):
    rows = data.draw(st.lists(st.integers(1, 30), min_size=len(shares), max_size=len(shares)))
    mixture = make(shares, rows)
    seen = Counter(mixture.locate(position) for position in range(400))
    assert max(seen.values()) == 1
    for name, count in mixture.rows.items():
        last = max((place.epoch for place in seen if place.source == name), default=-1)
        for epoch in range(last):
            assert {p.row for p in seen if (p.source, p.epoch) == (name, epoch)} == set(range(count))


@given(st.integers(1, 5000), st.binary(min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_permute_is_a_permutation(size, key):
    assert sorted(permute(index, size, key) for index in range(size)) == list(range(size))


def test_epochs_seeds_and_sources_have_different_orders():
    mixture, other = make([1, 1], [64, 64]), make([1, 1], [64, 64], seed=43)

    def order(mixture: Mixture, source: str, epoch: int) -> list[int]:
        places = [mixture.locate(position) for position in range(256)]
        return [place.row for place in places if (place.source, place.epoch) == (source, epoch)]

    orders = [
        order(mixture, "s0", 0),
        order(mixture, "s0", 1),
        order(mixture, "s1", 0),
        order(other, "s0", 0),
    ]
    assert all(sorted(rows) == list(range(64)) for rows in orders)
    assert len({tuple(rows) for rows in orders}) == len(orders)


def test_a_far_position_is_found_without_walking_there():
    mixture = make([0.6, 0.2, 0.2], [10**9, 10**6, 1000])
    assert mixture.counts(0, 10**12) == {"s0": 6 * 10**11, "s1": 2 * 10**11, "s2": 2 * 10**11}
    assert mixture.locate(10**12).source in mixture.names


def test_a_source_without_rows_is_named():
    with pytest.raises(UserError, match="s1"):
        make([1, 1], [5, 0])


def test_shares_with_endless_digits_are_refused():
    with pytest.raises(UserError, match="four decimals"):
        make([0.333333, 0.666667], [5, 5])

"""The order of the stream: exact shares at every prefix, a fresh permutation each epoch, arithmetic only."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_detour.data.mixture import WINDOW_SHARDS, EpochOrder, Mixture, permute
from clm_detour.utils.errors import UserError

weights = st.lists(st.integers(1, 60), min_size=1, max_size=7)


many_shards = st.lists(st.integers(1, 9), min_size=1, max_size=60)


def make(shares: list[float], rows: list[int], seed: int = 42) -> Mixture:
    """Sources of one shard each."""
    names = [f"s{i}" for i in range(len(shares))]
    shards = {name: [count] for name, count in zip(names, rows, strict=True)}
    return Mixture(dict(zip(names, shares, strict=True)), shards, seed)


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


@given(many_shards, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_source_of_many_shards_gives_every_row_once_an_epoch(shard_rows, epoch):
    mixture = Mixture({"a": 1}, {"a": shard_rows}, 42)
    rows = sum(shard_rows)
    places = [mixture.locate(epoch * rows + index) for index in range(rows)]
    assert {place.epoch for place in places} == {epoch}
    assert sorted(place.row for place in places) == list(range(rows))


@given(many_shards)
@settings(max_examples=60, deadline=None)
def test_rows_come_from_few_shards_at_a_time_and_each_shard_is_left_for_good(shard_rows):
    order = EpochOrder(shard_rows, "name")
    shard_of = [shard for shard, rows in enumerate(shard_rows) for _ in range(rows)]
    visits = [(order.window(index), shard_of[order.row(index)]) for index in range(sum(shard_rows))]
    assert [window for window, _ in visits] == sorted(window for window, _ in visits)
    members: dict[int, set[int]] = {}
    for window, shard in visits:
        members.setdefault(window, set()).add(shard)
    assert max(map(len, members.values())) <= WINDOW_SHARDS
    assert sum(map(len, members.values())) == len(shard_rows)
    assert all(members[number] == set(window.shards) for number, window in enumerate(order.windows))


def test_few_shards_are_permuted_as_one():
    one, several = Mixture({"a": 1}, {"a": [64]}, 42), Mixture({"a": 1}, {"a": [4] * WINDOW_SHARDS}, 42)
    assert [one.locate(i) for i in range(200)] == [several.locate(i) for i in range(200)]


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

"""CKA is what the papers define, whatever the form it is computed in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clm_detour.analyze.cka as module
from clm_detour.analyze.cka import Alignment, cka, half_samples, interval, outlier_dimensions
from clm_detour.analyze.streams import Minibatches, Moments, StreamedCKA

BOTH = pytest.mark.parametrize("debiased", [False, True], ids=["biased", "debiased"])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def related(n: int = 60, p: int = 20, q: int = 30, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two representations with something in common, means far from 0 and columns of unequal size."""
    x = normal(n, p, seed=seed) * torch.linspace(0.1, 3, p, dtype=torch.float64) + 7
    return x, x @ normal(p, q, seed=seed + 1) / p**0.5 + normal(n, q, seed=seed + 2) - 4


def textbook(x: np.ndarray, y: np.ndarray, debiased: bool) -> float:
    """Both estimators with explicit loops over examples: means over distinct pairs, triples, quadruples."""
    x, y = x - x.mean(0), y - y.mean(0)
    if not debiased:

        def norm(m: np.ndarray) -> float:
            return np.linalg.norm(m, "fro")

        return norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))

    def hsic(k: np.ndarray, c: np.ndarray) -> float:
        n = len(k)
        pairs = np.mean([k[i, j] * c[i, j] for i, j in itertools.permutations(range(n), 2)])
        triples = np.mean([k[i, j] * c[i, r] for i, j, r in itertools.permutations(range(n), 3)])
        fours = np.mean([k[i, j] * c[r, s] for i, j, r, s in itertools.permutations(range(n), 4)])
        return pairs - 2 * triples + fours

    k, c = x @ x.T, y @ y.T
    return hsic(k, c) / np.sqrt(hsic(k, k) * hsic(c, c))


@BOTH
def test_it_equals_the_textbook_on_a_few_examples(debiased):
    x, y = related(n=9, p=4, q=6)
    assert cka(x, y, debiased) == pytest.approx(textbook(x.numpy(), y.numpy(), debiased), abs=1e-12)


@BOTH
@pytest.mark.parametrize("sizes", [(60, 20, 30), (20, 40, 25)], ids=["n > p", "n < p"])
def test_every_entry_of_the_matrix_is_what_feature_products_give(debiased, sizes):
    x, y = related(*sizes)
    layers_x, layers_y = [x, x[:, :3].tanh(), normal(len(x), 7)], [y, x]
    matrix = Alignment(layers_x, layers_y).matrix(debiased)
    expected = [[streamed([(a, b)]).value(debiased) for b in layers_y] for a in layers_x]
    torch.testing.assert_close(matrix, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


@BOTH
@given(rows=st.integers(1, 70))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_depends_on_how_many_rows_of_the_gram_matrices_are_held(monkeypatch, debiased, rows):
    x, y = related()
    arguments = [x, x.tanh()], [y, x], [(0, 0), (1, 1)], half_samples(60, 7, seed=3)
    whole = Alignment(*arguments)
    monkeypatch.setattr(module, "STRIP_BYTES", rows * 8 * 60 * 10)
    assert sum(1 for _ in module.strips(60, 10)) == -(-60 // rows)
    cut = Alignment(*arguments)
    for one, other in (
        (whole.matrix(debiased), cut.matrix(debiased)),
        (whole.on_halves(debiased), cut.on_halves(debiased)),
        (whole.chance(), cut.chance()),
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@BOTH
def test_rotation_shift_and_scale_leave_it_at_one(debiased):
    x, _ = related()
    rotation, _ = torch.linalg.qr(normal(20, 20, seed=5))
    assert cka(x, 3.7 * x @ rotation - 11, debiased) == pytest.approx(1, abs=1e-12)
    assert cka(x, x @ normal(20, 20, seed=6), debiased) < 0.99  # any other map does not


@BOTH
@given(seed=st.integers(0, 2**31), n=st.integers(5, 40), p=st.integers(1, 50), q=st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_it_is_symmetric_and_at_most_one(debiased, seed, n, p, q):
    x, y = related(n, p, q, seed)
    value = cka(x, y, debiased)
    assert value == pytest.approx(cka(y, x, debiased), abs=1e-9)
    assert value >= -1 if debiased else value >= 0
    assert value <= 1 + 1e-9


def test_for_independent_data_only_the_debiased_estimate_is_near_zero():
    pairs = [(normal(50, 300, seed=2 * s), normal(50, 300, seed=2 * s + 1)) for s in range(20)]
    assert np.mean([cka(x, y, debiased=True) for x, y in pairs]) == pytest.approx(0, abs=0.01)
    assert min(cka(x, y) for x, y in pairs) > 0.8


def test_the_chance_level_is_the_mean_over_permutations():
    x, y = related(n=6, p=8, q=5)
    orders = list(itertools.permutations(range(6)))
    assert np.mean([cka(x, y[list(order)]) for order in orders]) == pytest.approx(
        float(Alignment([x], [y]).chance()), abs=1e-10
    )
    debiased = [cka(x, y[list(order)], debiased=True) for order in orders]
    assert np.mean(debiased) == pytest.approx(0, abs=1e-10)


def streamed(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> StreamedCKA:
    stream = StreamedCKA()
    for x, y in batches:
        stream.add(x, y)
    return stream


@BOTH
@given(cuts=st.lists(st.integers(1, 59), max_size=6, unique=True))
@settings(max_examples=20, deadline=None)
def test_streaming_equals_direct_however_the_stream_is_cut(debiased, cuts):
    x, y = related()
    ends = itertools.pairwise([0, *sorted(cuts), len(x)])
    stream = streamed([(x[start:end], y[start:end]) for start, end in ends])
    assert stream.value(debiased) == pytest.approx(cka(x, y, debiased), abs=1e-10)


@BOTH
def test_digits_are_kept_where_means_are_large(debiased):
    x, y = related()
    expected = cka(x, y, debiased)
    assert cka(x + 1e6, y, debiased) == pytest.approx(expected, abs=1e-8)
    assert streamed([(x + 1e6, y)]).value(debiased) == pytest.approx(expected, abs=1e-8)


def moments(x: torch.Tensor, y: torch.Tensor) -> Moments:
    sums = Moments()
    sums.add(x, y)
    return sums


def test_the_minibatch_estimate_is_unbiased():
    """Each entry's mean over every batch of 5 out of 8 examples is the U-statistic of all 8."""
    layers = [normal(8, 3), normal(8, 20, seed=1)]
    batches = Minibatches()
    for batch in itertools.combinations(range(8), 5):
        batches.add([x[list(batch)] for x in layers], [x[list(batch)] for x in layers])
    whole = torch.stack([torch.stack([moments(x, y).hsic(True) for y in layers]) for x in layers])
    torch.testing.assert_close(batches.hsic(), whole, rtol=0, atol=1e-10)
    matrix = Alignment(layers, layers).matrix(True)
    torch.testing.assert_close(batches.matrix(), matrix, rtol=0, atol=1e-10)
    assert (batches.batches, batches.examples) == (56, 280)


def test_a_few_hundred_random_batches_come_close_to_the_whole():
    x, y = related(n=2048)
    batches = Minibatches()
    for rows in torch.randperm(2048, generator=torch.Generator().manual_seed(0)).split(32):
        batches.add([x[rows]], [y[rows]])
    assert float(batches.matrix()) == pytest.approx(cka(x, y, debiased=True), abs=0.02)


@BOTH
@given(seed=st.integers(0, 2**31), n=st.integers(10, 60))
@settings(max_examples=20, deadline=None)
def test_a_half_sample_has_the_cka_of_the_examples_it_takes(debiased, seed, n):
    x, y = related(n, seed=seed)
    halves = half_samples(n, 7, seed)
    assert (halves.sum(1) == n // 2).all()
    got = Alignment([y, x], [y], [(1, 0), (0, 0)], halves).on_halves(debiased)
    for (value, same), half in zip(got, halves.bool(), strict=True):
        assert float(value) == pytest.approx(cka(x[half], y[half], debiased), abs=1e-10)
        assert float(same) == pytest.approx(1, abs=1e-10)


@pytest.mark.slow
def test_nineteen_of_twenty_intervals_hold_the_true_value():
    """The truth: CKA of 20,000 examples. 200 studies of 100; 95 % within three standard errors."""
    mixing, noise = normal(6, 8, seed=1), 1.5

    def study(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = normal(n, 6, seed=seed)
        return x, x @ mixing + noise * normal(n, 8, seed=seed + 10**6)

    truth = cka(*study(20_000, 77), debiased=True)
    hits = 0
    for seed in range(200):
        x, y = study(100, 1000 + seed)
        found = Alignment([x], [y], [(0, 0)], half_samples(100, 200, seed))
        low, high = interval(found.matrix(True)[0, 0], found.on_halves(True)[:, 0])
        hits += bool(low <= truth <= high)
    assert 0.9 <= hits / 200 <= 1


def test_outlier_dimensions_are_those_that_vary_far_more_than_the_median_one():
    x = normal(300, 40)
    assert not outlier_dimensions(x).any()
    x[:, [3, 17]] *= 50
    assert outlier_dimensions(x).nonzero().flatten().tolist() == [3, 17]
    assert outlier_dimensions(x * 1e-3 + 5).sum() == 2


def test_too_few_examples_are_refused():
    with pytest.raises(ValueError, match="too few"):
        cka(normal(3, 2), normal(3, 2), debiased=True)

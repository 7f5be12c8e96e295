"""CKA is what the papers define, whatever the form it is computed in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_detour.analyze.cka import (
    Minibatches,
    Moments,
    StreamedCKA,
    centred,
    chance_level,
    cka,
    cka_matrix,
    feature_form,
    gram,
    gram_form,
    half_samples,
    interval,
    outlier_dimensions,
    prefers_grams,
    resampled_cka,
    u_centred,
)

BOTH = pytest.mark.parametrize("debiased", [False, True], ids=["biased", "debiased"])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def related(n: int = 60, p: int = 20, q: int = 30, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two representations with something in common, means far from 0 and columns of unequal size."""
    x = normal(n, p, seed=seed) * torch.linspace(0.1, 3, p, dtype=torch.float64) + 7
    return x, x @ normal(p, q, seed=seed + 1) / p**0.5 + normal(n, q, seed=seed + 2) - 4


def textbook(x: np.ndarray, y: np.ndarray, debiased: bool) -> float:
    """Both estimators with explicit loops over examples: HSIC_1 as means over distinct pairs, triples and quadruples."""
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
def test_both_forms_agree(debiased, sizes):
    x, y = related(*sizes)
    layers_x, layers_y = [x, x[:, :3].tanh(), normal(len(x), 7)], [y, x]
    grams, features = (form(layers_x, layers_y, debiased) for form in (gram_form, feature_form))
    assert grams.shape == (3, 2)
    torch.testing.assert_close(grams, features, rtol=0, atol=1e-10)
    torch.testing.assert_close(cka_matrix(layers_x, layers_y, debiased), grams, rtol=0, atol=1e-10)


def test_the_cheaper_form_is_taken():
    assert prefers_grams(500, [1024] * 30, [1024] * 30)
    assert not prefers_grams(5000, [128] * 6, [128] * 6)
    assert not prefers_grams(20_000, [10**6], [10**6])  # two Gram matrices would fill 6 GB


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
        chance_level(x, y), abs=1e-10
    )
    debiased = [cka(x, y[list(order)], debiased=True) for order in orders]
    assert np.mean(debiased) == pytest.approx(0, abs=1e-10)


@BOTH
@given(cuts=st.lists(st.integers(1, 59), max_size=6, unique=True))
@settings(max_examples=20, deadline=None)
def test_streaming_equals_direct_however_the_stream_is_cut(debiased, cuts):
    x, y = related()
    stream = StreamedCKA()
    for start, end in itertools.pairwise([0, *sorted(cuts), len(x)]):
        stream.add(x[start:end], y[start:end])
    assert stream.value(debiased) == pytest.approx(cka(x, y, debiased), abs=1e-10)


@BOTH
def test_streaming_keeps_its_digits_where_means_are_large(debiased):
    x, y = related()
    assert feature_form([x + 1e6], [y], debiased)[0, 0] == pytest.approx(cka(x, y, debiased), abs=1e-8)


def test_the_minibatch_estimate_is_unbiased():
    """Its mean over every batch of 5 out of 8 examples is the U-statistic of all 8, in each entry of the matrix."""
    layers = [normal(8, 3), normal(8, 20, seed=1)]
    batches = Minibatches()
    for batch in itertools.combinations(range(8), 5):
        batches.add([x[list(batch)] for x in layers], [x[list(batch)] for x in layers])
    whole = torch.stack([torch.stack([Moments.of(x, y).hsic(True) for y in layers]) for x in layers])
    torch.testing.assert_close(batches.hsic(), whole, rtol=0, atol=1e-10)
    torch.testing.assert_close(batches.matrix(), cka_matrix(layers, layers, True), rtol=0, atol=1e-10)
    assert (batches.batches, batches.examples) == (56, 280)


def test_a_few_hundred_random_batches_come_close_to_the_whole():
    x, y = related(n=2048)
    batches = Minibatches()
    for rows in torch.randperm(2048, generator=torch.Generator().manual_seed(0)).split(32):
        batches.add([x[rows]], [y[rows]])
    assert float(batches.matrix()) == pytest.approx(cka(x, y, debiased=True), abs=0.02)


def test_centred_matrices_sum_to_zero():
    k = gram(normal(12, 5))
    for matrix in (centred(k), u_centred(k)):
        torch.testing.assert_close(matrix.sum(0), torch.zeros(12, dtype=torch.float64), rtol=0, atol=1e-10)
    assert u_centred(k).diagonal().abs().max() == 0


@BOTH
def test_a_resample_is_the_cka_of_the_examples_it_takes(debiased):
    x, y = related()
    halves = half_samples(len(x), 7, seed=3)
    assert (halves.sum(1) == 30).all()
    got = resampled_cka(gram(x), gram(y), halves, debiased)
    for value, half in zip(got, halves.bool(), strict=True):
        assert float(value) == pytest.approx(cka(x[half], y[half], debiased), abs=1e-10)


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
        spread = resampled_cka(gram(x), gram(y), half_samples(100, 200, seed), debiased=True)
        low, high = interval(torch.tensor(cka(x, y, debiased=True), dtype=torch.float64), spread)
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

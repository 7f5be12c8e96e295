"""Linear centered kernel alignment (CKA), a similarity of two representations of the same examples.

Mathematics only, in float64. CKA(X, Y) = HSIC(XX', YY') / sqrt(HSIC(XX', XX') HSIC(YY', YY')), which is 1 for
representations that differ by a rotation, a shift and a scale. There are two estimators of HSIC:

    biased      |Xc' Yc|^2 / (n - 1)^2, Xc and Yc column-centered (Kornblith et al. 2019, arXiv 1905.00414),
                as in the paper. With fewer examples than dimensions it is far above 0 even for independent
                data: see `Alignment.chance`.
    debiased    the U-statistic (Song et al. 2012, eq. 5), 0 in the mean for independent data at any n.

Both follow from a few sums over two Gram matrices (`Sums`), which `Alignment` computes for all layers of two
networks, and for half-samples: with w the 0s and 1s that select a half-sample, a sum over its part of a
matrix K is w'Kw, so one matrix product computes all of them. `streams.py` computes the sums of more examples
than fit into memory.

Shapes: n examples, p and q dimensions, A and B layers, P pairs of layers, R half-samples, s rows of a strip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

STRIP_BYTES = 128 << 20  # bytes of Gram matrices and their products held at a time
SMALLEST = {False: 2, True: 4}  # fewest examples of an estimator, by `debiased`


class Sums(NamedTuple):
    """Sums over two Gram matrices K and L of n examples (with zero diagonals for the debiased estimator).

    Args:
        product: Sum of k_ij l_ij.
        rows: Sum over i of the products of the row sums of K and L.
        total_k, total_l: Sums of all entries.
        n: Number of examples, (R,) where half-samples differ.
    """

    product: Tensor
    rows: Tensor | float
    total_k: Tensor | float
    total_l: Tensor | float
    n: int | Tensor

    def hsic(self, debiased: bool) -> Tensor:
        """Return the estimate."""
        n, totals = self.n, self.total_k * self.total_l
        if debiased:
            return (self.product + totals / ((n - 1) * (n - 2)) - 2 * self.rows / (n - 2)) / (n * (n - 3))
        return (self.product - 2 * self.rows / n + totals / n**2) / (n - 1) ** 2


def cka(x: Tensor, y: Tensor, debiased: bool = False) -> float:
    """Return the CKA of (n, p) and (n, q)."""
    return float(Alignment([x], [y]).matrix(debiased))


class Alignment:
    """The CKA of two networks' layers on the same examples.

    Gram matrices are computed in strips of rows, so memory does not grow with n^2.

    Args:
        xs, ys: Representations at each layer, (n, p) and (n, q), float64. The sizes may differ between
            layers.
        pairs: Matched layers, as indices in `xs` and `ys`, for which half-samples are computed.
        halves: (R, n) of 0 and 1, the examples of each half-sample.

    Raises:
        ValueError: If there are too few examples for the biased estimator.
    """

    def __init__(
        self,
        xs: Sequence[Tensor],
        ys: Sequence[Tensor],
        pairs: Sequence[tuple[int, int]] = (),
        halves: Tensor | None = None,
    ):
        self.n = len(xs[0])
        self._refuse_few(debiased=False)
        xs, ys = ([z - z.mean(0) for z in zs] for zs in (xs, ys))  # keeps the digits where means are large
        self.norms_x, self.norms_y = (torch.stack([z.square().sum(1) for z in zs]) for zs in (xs, ys))
        self.cross = xs[0].new_zeros(len(xs), len(ys))
        self.own_x, self.own_y = (xs[0].new_zeros(len(zs)) for zs in (xs, ys))
        at_x, at_y = ([pair[side] for pair in pairs] for side in (0, 1))
        norms = torch.cat([self.norms_x[at_x], self.norms_y[at_y]])
        self.halves = None if halves is None else _Halves(halves, norms)
        for rows in strips(self.n, len(xs) + len(ys) + 3 * len(pairs)):
            k, c = (torch.stack([z[rows] @ z.T for z in zs]) for zs in (xs, ys))
            self.cross += k.flatten(1) @ c.flatten(1).T
            self.own_x += k.square().sum((1, 2))
            self.own_y += c.square().sum((1, 2))
            if self.halves is not None:
                self.halves.add(torch.cat([k[at_x], c[at_y]]), rows)

    def _refuse_few(self, debiased: bool) -> None:
        if self.n < SMALLEST[debiased]:
            raise ValueError(f"{self.n} examples are too few; this estimator needs {SMALLEST[debiased]}")

    def hsic(self, debiased: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return HSIC of every layer with every layer, (A, B), and of each with itself, (A,) and (B,).

        Rows and columns of the Gram matrices sum to 0, so without its diagonal a row sums to minus its norm.

        Raises:
            ValueError: If there are too few examples.
        """
        self._refuse_few(debiased)

        def estimate(product: Tensor, norms_k: Tensor, norms_l: Tensor, norms: Tensor) -> Tensor:
            if not debiased:
                return Sums(product, 0.0, 0.0, 0.0, self.n).hsic(False)
            return Sums(product - norms, norms, norms_k.sum(-1), norms_l.sum(-1), self.n).hsic(True)

        x, y = self.norms_x, self.norms_y
        return (
            estimate(self.cross, x[:, None], y, x @ y.T),
            estimate(self.own_x, x, x, x.square().sum(1)),
            estimate(self.own_y, y, y, y.square().sum(1)),
        )

    def matrix(self, debiased: bool) -> Tensor:
        """Return the CKA of every layer with every layer, (A, B).

        Raises:
            ValueError: If there are too few examples for the estimator.
        """
        cross, own_x, own_y = self.hsic(debiased)
        return cross / (own_x[:, None] * own_y).sqrt()

    def on_halves(self, debiased: bool) -> Tensor:
        """Return the CKA of matched layers on each half-sample, (R, P)."""
        assert self.halves is not None
        cross, own_x, own_y = self.halves.hsic(debiased)
        return (cross / (own_x * own_y).sqrt()).T

    def chance(self) -> Tensor:
        """Return the biased CKA to be expected if the examples of y were shuffled, (A, B).

        It is the mean over all n! permutations, in closed form: what the debiased estimator removes. The mean
        of the debiased estimator over all permutations is 0.
        """
        traces = torch.outer(self.norms_x.sum(1), self.norms_y.sum(1))
        return traces / ((self.n - 1) * torch.outer(self.own_x, self.own_y).sqrt())


class _Halves:
    """The sums over each half-sample's part of the Gram matrices of P pairs, with and without diagonals."""

    def __init__(self, weights: Tensor, norms: Tensor):
        """`norms`: (2P, n), the diagonals of the first layers of all pairs, then of the second layers."""
        first, second = slice(len(norms) // 2), slice(len(norms) // 2, None)
        self.combinations = ((first, second), (first, first), (second, second))
        self.weights, self.norms = weights, norms
        shape = (3, len(norms) // 2, len(weights))
        self.products, self.rows, self.rows_off = (norms.new_zeros(shape) for _ in range(3))
        self.totals = norms.new_zeros(len(norms), len(weights))

    def add(self, grams: Tensor, rows: slice) -> None:
        """Add a strip of all Gram matrices, (2P, s, n)."""
        taken = self.weights[:, rows].T  # (s, R)
        of = grams @ self.weights.T  # (2P, s, R): row sums
        of_off = of - self.norms[:, rows, None] * taken
        self.totals += (of * taken).sum(1)
        for place, (a, b) in enumerate(self.combinations):
            self.products[place] += (((grams[a] * grams[b]) @ self.weights.T) * taken).sum(1)
            self.rows[place] += (of[a] * of[b] * taken).sum(1)
            self.rows_off[place] += (of_off[a] * of_off[b] * taken).sum(1)

    def hsic(self, debiased: bool) -> list[Tensor]:
        """Return (P, R) each: for the pairs, for their first layers alone, for their second layers alone."""
        m, found = self.weights.sum(1), []
        for place, (a, b) in enumerate(self.combinations):
            product, rows, totals = self.products[place], self.rows[place], self.totals
            if debiased:
                product = product - (self.norms[a] * self.norms[b]) @ self.weights.T
                rows, totals = self.rows_off[place], totals - self.norms @ self.weights.T
            found.append(Sums(product, rows, totals[a], totals[b], m).hsic(debiased))
        return found


def strips(n: int, matrices: int) -> Iterator[slice]:
    """Yield slices of n rows, so that the strips of this number of n x n matrices take `STRIP_BYTES`."""
    height = max(STRIP_BYTES // (8 * n * matrices), 1)
    return (slice(start, min(start + height, n)) for start in range(0, n, height))


def half_samples(n: int, count: int, seed: int) -> Tensor:
    """Return `count` random halves of n examples without replacement, (count, n) float64 of 0 and 1.

    The spread of a statistic over halves estimates its standard error over all n (delete-half jackknife, Shao
    and Wu 1989). Drawing with replacement would put a text beside itself, off the diagonal, where the
    U-statistic takes it for another text.
    """
    order = torch.rand(count, n, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return (order < n // 2).double()


def interval(value: Tensor, replicates: Tensor, level: float = 0.95) -> Tensor:
    """Return bounds around `value`, (...) -> (..., 2), from its spread on half-samples, (R, ...).

    The mean of the halves is subtracted, because the biased estimator is higher on fewer examples.
    """
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    spread = torch.quantile(replicates - replicates.mean(0), tails, dim=0)
    return value[..., None] + spread.movedim(0, -1)


def outlier_dimensions(x: Tensor, factor: float = 5.0) -> Tensor:
    """Return the dimensions whose deviation is more than `factor` times that of the median one, (p,) bool."""
    deviation = x.std(0)
    return deviation > factor * deviation.median()

"""Linear centred kernel alignment (CKA): how alike are two representations of the same examples? Mathematics only, float64.

CKA(X, Y) = HSIC(XX', YY') / sqrt(HSIC(XX', XX') HSIC(YY', YY')), which is 1 for representations that differ by a rotation, a shift and a
scale. The two estimators of HSIC:

    biased      |Xc' Yc|^2 / (n - 1)^2, Xc and Yc column-centred (Kornblith et al. 2019, arXiv 1905.00414). What the paper uses. With fewer
                examples than dimensions it is far above 0 even for independent data: see `chance_level`.
    debiased    the U-statistic (Song et al. 2012, eq. 5), 0 in the mean for independent data at any n.

Both are inner products of centred Gram matrices (`centred`, `u_centred`), and both can be had from feature products without any
n x n matrix (`Moments`), also as a stream. `Minibatches` averages the debiased one over batches (Nguyen et al. 2021, arXiv 2010.15327, eq. 3).

Shapes: n examples, p and q dimensions, A and B layers, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

GRAM_BYTES = 2 << 30  # of all Gram matrices held at a time; above it the feature form is taken
SMALLEST = {False: 2, True: 4}  # examples that an estimator needs, by `debiased`


def gram(x: Tensor) -> Tensor:
    """(n, p) -> (n, n), of the column-centred features: no less exact where means are large."""
    x = x - x.mean(0)
    return x @ x.T


def centred(k: Tensor) -> Tensor:
    """HKH, (n, n): rows and columns sum to 0."""
    return k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()


def u_centred(k: Tensor) -> Tensor:
    """The U-centred matrix (Szekely and Rizzo 2014, eq. 2.11), (n, n): diagonal 0, rows and columns sum to 0."""
    n = len(k)
    k = k - torch.diag(k.diagonal())
    rows = k.sum(0) / (n - 2)
    k = k - rows - rows[:, None] + rows.sum() / (n - 1)
    return k - torch.diag(k.diagonal())


def cka(x: Tensor, y: Tensor, debiased: bool = False) -> float:
    """CKA of (n, p) and (n, q), by the cheaper form."""
    return float(cka_matrix([x], [y], debiased)[0, 0])


def cka_matrix(xs: Sequence[Tensor], ys: Sequence[Tensor], debiased: bool = False) -> Tensor:
    """(A, B): CKA of every layer of one network with every layer of another, by the cheaper form.

    Args:
        xs, ys: of each layer (n, p) and (n, q), float64; the sizes may differ between layers.

    Raises:
        ValueError: too few examples for the estimator.
    """
    n = len(xs[0])
    if n < SMALLEST[debiased]:
        raise ValueError(f"{n} examples are too few; this estimator needs {SMALLEST[debiased]}")
    widths_x, widths_y = [x.shape[1] for x in xs], [y.shape[1] for y in ys]
    if prefers_grams(n, widths_x, widths_y):
        return gram_form(xs, ys, debiased)
    return feature_form(xs, ys, debiased)


def prefers_grams(n: int, widths_x: Sequence[int], widths_y: Sequence[int]) -> bool:
    """Whether n x n Gram matrices take fewer multiplications than p x q feature products, and fit into `GRAM_BYTES`."""
    p, q, layers = sum(widths_x), sum(widths_y), len(widths_x) + len(widths_y)
    grams = n * n * (p + q + len(widths_x) * len(widths_y))
    features = n * (p * q + sum(w * w for w in [*widths_x, *widths_y]))
    return grams <= features and layers * n * n * 8 <= GRAM_BYTES


def gram_form(xs: Sequence[Tensor], ys: Sequence[Tensor], debiased: bool) -> Tensor:
    """(A, B): cosines between centred Gram matrices."""
    centre = u_centred if debiased else centred
    flat_x, flat_y = (torch.stack([centre(gram(z)).flatten() for z in zs]) for zs in (xs, ys))
    return (flat_x @ flat_y.T) / (flat_x.norm(dim=1)[:, None] * flat_y.norm(dim=1))


def feature_form(xs: Sequence[Tensor], ys: Sequence[Tensor], debiased: bool) -> Tensor:
    """(A, B): from feature products; memory of one pair of layers at a time."""
    own_x, own_y = ([Moments.of(z, z).hsic(debiased) for z in zs] for zs in (xs, ys))
    cross = torch.stack([torch.stack([Moments.of(x, y).hsic(debiased) for y in ys]) for x in xs])
    return cross / (torch.stack(own_x)[:, None] * torch.stack(own_y)).sqrt()


class Moments:
    """Sums over a stream of pairs (x, y) from which both estimators of HSIC follow exactly; p x q numbers whatever n is.

    Everything is shifted by the first batch's means, which changes neither estimator and spares the digits that large means would cost.
    """

    def __init__(self) -> None:
        self.n = 0
        self.sums: dict[str, Tensor] = {}

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Moments:
        """Of one batch."""
        moments = cls()
        moments.add(x, y)
        return moments

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in a batch, (m, p) and (m, q)."""
        if not self.n:
            self.shift_x, self.shift_y = x.mean(0), y.mean(0)
        x, y = x - self.shift_x, y - self.shift_y
        norm_x, norm_y = x.square().sum(1), y.square().sum(1)
        sums = {
            "x": x.sum(0), "y": y.sum(0), "xy": x.T @ y, "x_norm_y": norm_y @ x, "y_norm_x": norm_x @ y,
            "norm_x": norm_x.sum(), "norm_y": norm_y.sum(), "norms": norm_x @ norm_y,
        }  # fmt: skip
        self.sums = {key: self.sums[key] + value for key, value in sums.items()} if self.n else sums
        self.n += len(x)

    def hsic(self, debiased: bool) -> Tensor:
        """The estimate so far, a scalar."""
        n, s = self.n, self.sums
        if not debiased:
            return (s["xy"] - torch.outer(s["x"], s["y"]) / n).square().sum() / (n - 1) ** 2
        total_x = s["x"] @ s["x"] - s["norm_x"]  # of the Gram matrices without diagonal
        total_y = s["y"] @ s["y"] - s["norm_y"]
        product = s["xy"].square().sum() - s["norms"]
        rows = s["x"] @ s["xy"] @ s["y"] - s["x"] @ s["x_norm_y"] - s["y"] @ s["y_norm_x"] + s["norms"]
        return _u_statistic(product, rows, total_x, total_y, n)


class StreamedCKA:
    """CKA of one pair of layers over any number of examples, exactly, in p x p + q x q + p x q numbers."""

    def __init__(self) -> None:
        self.xx, self.yy, self.xy = Moments(), Moments(), Moments()

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in a batch, (m, p) and (m, q), float64."""
        self.xx.add(x, x)
        self.yy.add(y, y)
        self.xy.add(x, y)

    def value(self, debiased: bool = False) -> float:
        """CKA of all that was added."""
        own = self.xx.hsic(debiased) * self.yy.hsic(debiased)
        return float(self.xy.hsic(debiased) / own.sqrt())


class Minibatches:
    """The debiased (A, B) matrix over any number of examples: HSIC is averaged over batches, then divided.

    The average of the U-statistic over random batches is unbiased for the U-statistic of all examples. Memory is that of one batch.
    """

    def __init__(self) -> None:
        self.batches = self.examples = 0
        self.sums: list[Tensor] = []

    def add(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> None:
        """Take in a batch of at least 4 examples: of each layer (m, p) and (m, q), float64."""
        flat_x, flat_y = (torch.stack([u_centred(gram(z)).flatten() for z in zs]) for zs in (xs, ys))
        m = len(xs[0])
        new = [flat_x @ flat_y.T, flat_x.square().sum(1), flat_y.square().sum(1)]
        new = [sums / (m * (m - 3)) for sums in new]
        self.sums = [old + more for old, more in zip(self.sums, new, strict=True)] if self.batches else new
        self.batches += 1
        self.examples += m

    def hsic(self) -> Tensor:
        """(A, B): the mean over batches."""
        return self.sums[0] / self.batches

    def matrix(self) -> Tensor:
        """(A, B): CKA."""
        cross, own_x, own_y = self.sums
        return cross / (own_x[:, None] * own_y).sqrt()


def chance_level(x: Tensor, y: Tensor) -> float:
    """The biased CKA to be expected if y's examples were shuffled: its mean over all n! permutations, in closed form.

    What the debiased estimator takes away; its own mean over all permutations is 0.
    """
    k, c = centred(gram(x)), centred(gram(y))
    return float(k.trace() * c.trace() / ((len(k) - 1) * k.norm() * c.norm()))


def half_samples(n: int, count: int, seed: int) -> Tensor:
    """(count, n) float64 of 0 and 1: each row draws half of n examples without replacement.

    The spread of a statistic over halves estimates its standard error over all n (delete-half jackknife, Shao and Wu 1989). Drawing
    with replacement would put a text beside itself, off the diagonal, where the U-statistic takes it for another text.
    """
    order = torch.rand(count, n, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return (order < n // 2).double()


def resampled_cka(k: Tensor, c: Tensor, weights: Tensor, debiased: bool) -> Tensor:
    """(R,): CKA of the examples that each row of `weights` takes.

    Args:
        k, c: (n, n) Gram matrices of two layers.
        weights: (R, n) of 0 and 1.
    """
    if debiased:
        k, c = (z - torch.diag(z.diagonal()) for z in (k, c))
    of_k, of_c = weights @ k, weights @ c
    cross, own_k, own_c = (
        _resampled_hsic(a, b, of_a, of_b, weights, debiased)
        for a, b, of_a, of_b in ((k, c, of_k, of_c), (k, k, of_k, of_k), (c, c, of_c, of_c))
    )
    return cross / (own_k * own_c).sqrt()


def _resampled_hsic(
    a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor, weights: Tensor, debiased: bool
) -> Tensor:
    m = weights.sum(1)
    product = ((weights @ (a * b)) * weights).sum(1)
    rows = (weights * of_a * of_b).sum(1)
    total_a, total_b = (weights * of_a).sum(1), (weights * of_b).sum(1)
    if debiased:
        return _u_statistic(product, rows, total_a, total_b, m)
    return (product - 2 * rows / m + total_a * total_b / m**2) / (m - 1) ** 2


def _u_statistic(product: Tensor, rows: Tensor, total_x: Tensor, total_y: Tensor, n: int | Tensor) -> Tensor:
    """HSIC_1 from sums over two Gram matrices without diagonals: of products, of products of row sums, of all entries."""
    return (product + total_x * total_y / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3))


def interval(value: Tensor, replicates: Tensor, level: float = 0.95) -> Tensor:
    """(..., 2): bounds around `value`, (...), from the spread of its values on half-samples, (R, ...).

    The halves' own mean is taken away: on fewer examples the biased estimator is higher.
    """
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    spread = torch.quantile(replicates - replicates.mean(0), tails, dim=0)
    return value[..., None] + spread.movedim(0, -1)


def outlier_dimensions(x: Tensor, factor: float = 5.0) -> Tensor:
    """(p,) bool: dimensions whose standard deviation over the examples is more than `factor` times the median dimension's."""
    deviation = x.std(0)
    return deviation > factor * deviation.median()

"""CKA of more examples than fit into memory: exactly, from feature products, or as an average over batches.

The estimators are those of `cka.py`. Shapes: m examples of a batch, p and q dimensions, A and B layers.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from clm_detour.analyze.cka import Alignment, Sums


class Moments:
    """Sums over a stream of pairs (x, y) from which both estimators of HSIC follow exactly.

    They are p x q numbers for any n. All values are shifted by the means of the first batch, which changes
    neither estimator and keeps the digits that large means would cost.
    """

    def __init__(self) -> None:
        self.n = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add a batch, (m, p) and (m, q)."""
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
        """Return the estimate so far, a scalar."""
        n, s = self.n, self.sums
        if not debiased:
            return (s["xy"] - s["x"].outer(s["y"]) / n).square().sum() / (n - 1) ** 2
        rows = s["x"] @ s["xy"] @ s["y"] - s["x"] @ s["x_norm_y"] - s["y"] @ s["y_norm_x"] + s["norms"]
        return Sums(
            product=s["xy"].square().sum() - s["norms"],
            rows=rows,
            total_k=s["x"] @ s["x"] - s["norm_x"],
            total_l=s["y"] @ s["y"] - s["norm_y"],
            n=n,
        ).hsic(True)


class StreamedCKA:
    """The exact CKA of one pair of layers over any number of examples, in p x p + q x q + p x q numbers."""

    def __init__(self) -> None:
        self.xx, self.yy, self.xy = Moments(), Moments(), Moments()

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add a batch, (m, p) and (m, q), float64."""
        self.xx.add(x, x)
        self.yy.add(y, y)
        self.xy.add(x, y)

    def value(self, debiased: bool = False) -> float:
        """Return the CKA of all that was added."""
        own = self.xx.hsic(debiased) * self.yy.hsic(debiased)
        return float(self.xy.hsic(debiased) / own.sqrt())


class Minibatches:
    """The debiased (A, B) matrix over any number of examples: HSIC is averaged over batches, then divided.

    See Nguyen et al. 2021, arXiv 2010.15327, eq. 3. The average of the U-statistic over random batches is
    unbiased for the U-statistic of all examples. Memory is that of one batch.
    """

    def __init__(self) -> None:
        self.batches = self.examples = 0
        self.sums: Sequence[Tensor] = ()

    def add(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> None:
        """Add a batch of at least 4 examples: representations at each layer, (m, p) and (m, q), float64."""
        new = Alignment(xs, ys).hsic(debiased=True)
        self.sums = [old + more for old, more in zip(self.sums, new, strict=True)] if self.batches else new
        self.batches += 1
        self.examples += len(xs[0])

    def hsic(self) -> Tensor:
        """Return the mean over batches, (A, B)."""
        return self.sums[0] / self.batches

    def matrix(self) -> Tensor:
        """Return the CKA, (A, B)."""
        cross, own_x, own_y = self.sums
        return cross / (own_x[:, None] * own_y).sqrt()

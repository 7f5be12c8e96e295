"""Compare the pooled states of two networks by every estimator of CKA, with half-samples for intervals.

Shapes: N texts in all samples together, A and B layers, P matched layers, S samples, R half-samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clm_detour.analyze.cka import Alignment, outlier_dimensions
from clm_detour.analyze.streams import Minibatches

VARIANTS = {  # name -> (debiased, without outlier dimensions)
    "biased": (False, False),
    "debiased": (True, False),
    "biased_trimmed": (False, True),
    "debiased_trimmed": (True, True),
}
INNER = slice(1, -1)  # the layers in the mean of a model: without embeddings and final norm
BLOCK = {"minibatch": 256, "tokens": 512}  # examples in a batch of the minibatch estimates


@dataclass(frozen=True)
class States:
    """The states of one network.

    Args:
        layers: Names of the layers.
        means: Mean-pooled states of the texts at each layer, (N, p).
        tokens: States of single tokens at each layer, (tokens, p).
    """

    layers: tuple[str, ...]
    means: list[Tensor]
    tokens: list[Tensor]

    def outliers(self, factor: float) -> list[Tensor]:
        """Return the outlier dimensions of each layer, (p,) bool."""
        return [outlier_dimensions(x, factor) for x in self.means]


@dataclass(frozen=True)
class Measured:
    """The CKA of two networks by one estimator.

    Args:
        matrix: (A, B), the mean over samples.
        samples: (S, P), matched layers in each sample; empty, (0, P), if the estimator uses all texts at
            once.
        curve: (P,), matched layers.
        resamples: (R, P) on half-samples; empty, (0, P), where there are none.
        chance: (P,), the CKA of shuffled texts.
    """

    matrix: Tensor
    samples: Tensor
    curve: Tensor
    resamples: Tensor
    chance: Tensor

    def divergence(self) -> Tensor:
        """Return the divergence of the models: the mean over layers of 1 - CKA."""
        return 1 - self.curve[INNER].mean()

    def divergences(self) -> Tensor:
        """Return the divergence of the models on each half-sample, (R,)."""
        return 1 - self.resamples[:, INNER].mean(1)


def matched_layers(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Return for each layer of A the layer of B at the same relative depth.

    Embeddings are matched with embeddings, the final norm with the final norm.
    """
    inner_a, inner_b = len(a) - 2, len(b) - 2
    step = (inner_b - 1) / max(inner_a - 1, 1)
    inner = [(i + 1, round(i * step) + 1) for i in range(inner_a)]
    return [(0, 0), *inner, (len(a) - 1, len(b) - 1)]


def measure(
    a: States, b: States, members: np.ndarray, halves: Tensor, factor: float, device: torch.device
) -> dict[str, Measured]:
    """Return the CKA of pooled states by the estimators of `VARIANTS` and by `minibatch`.

    If there are states of tokens, their CKA is added as `tokens`.

    Args:
        a, b: States of the networks.
        members: (S, n) indices of the texts of each sample among the N.
        halves: (R, N) of 0 and 1.
        factor: See `outlier_dimensions`.
        device: Device of the computation.
    """
    found: dict[str, Measured] = {}
    pairs = matched_layers(a.layers, b.layers)
    for trimmed in (False, True):
        xs, ys = (_trim(a, factor), _trim(b, factor)) if trimmed else (a.means, b.means)
        names = {debiased: name for name, (debiased, t) in VARIANTS.items() if t == trimmed}
        found |= _over_samples(xs, ys, pairs, torch.from_numpy(members), halves, names, device)
    found["minibatch"] = _over_batches(a.means, b.means, pairs, BLOCK["minibatch"])
    if a.tokens[0].numel() and len(a.tokens[0]) == len(b.tokens[0]):
        found["tokens"] = _over_batches(a.tokens, b.tokens, pairs, BLOCK["tokens"])
    return found


def _trim(states: States, factor: float) -> list[Tensor]:
    return [x[:, ~out] for x, out in zip(states.means, states.outliers(factor), strict=True)]


def _over_samples(
    all_xs: list[Tensor],
    all_ys: list[Tensor],
    pairs: list[tuple[int, int]],
    members: Tensor,
    halves: Tensor,
    names: dict[bool, str],
    device: torch.device,
) -> dict[str, Measured]:
    alignments = [
        Alignment(
            [x[rows].to(device) for x in all_xs],
            [y[rows].to(device) for y in all_ys],
            pairs,
            halves[:, rows].to(device),
        )
        for rows in members
    ]
    at = tuple(torch.tensor(pairs).T)
    found = {}
    for debiased, name in names.items():
        matrices = torch.stack([alignment.matrix(debiased).cpu() for alignment in alignments])
        resamples = torch.stack([alignment.on_halves(debiased).cpu() for alignment in alignments]).mean(0)
        chance = torch.stack([alignment.chance().cpu() for alignment in alignments]).mean(0)[at]
        samples = matrices[:, at[0], at[1]]
        found[name] = Measured(
            matrices.mean(0),
            samples,
            samples.mean(0),
            resamples,
            torch.zeros_like(chance) if debiased else chance,
        )
    return found


def _over_batches(xs: list[Tensor], ys: list[Tensor], pairs: list[tuple[int, int]], block: int) -> Measured:
    """Average over random batches of about `block` examples.

    They are random because texts of one source, or tokens of one text, may be neighbors.
    """
    batches = Minibatches()
    order = torch.randperm(len(xs[0]), generator=torch.Generator().manual_seed(0))
    for rows in order.tensor_split(max(len(order) // block, 1)):
        batches.add([x[rows] for x in xs], [y[rows] for y in ys])
    return of_minibatches(batches, pairs)


def of_minibatches(batches: Minibatches, pairs: list[tuple[int, int]]) -> Measured:
    """Return the measure of all batches together."""
    matrix = batches.matrix().cpu()
    curve = torch.stack([matrix[i, j] for i, j in pairs])
    none = torch.empty(0, len(pairs), dtype=torch.float64)
    return Measured(matrix, none, curve, none, torch.zeros_like(curve))

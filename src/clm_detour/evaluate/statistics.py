"""Means over seeds with their intervals, and comparisons of models. See docs/statistics.md.

Scores are in percent. Differences are paired: two models are compared seed by seed on each task. With at
least `FEWEST_TASKS` tasks the test asks whether one model is better on tasks like these. `SignFlips` of the
tasks' mean differences answers this question, with the right size whatever the noise, as
benchmarks/statistics_size.py shows. With fewer tasks there is no p value. An interval over seeds then
predicts what other seeds would give on the same tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from clm_detour.records.evaluation import Equivalence, PaperBootstrap
from clm_detour.records.store import Interval

CONFIDENCE = 0.95
FEWEST_TASKS = 6  # with five, no two-sided p of sign flips is below 2 / 2**5 = 0.0625
EXACT_TASKS = 16  # with more tasks, 2**16 - 1 random sign flips are used instead of all
RESAMPLES = 10_000  # of the paper's bootstrap
RESAMPLING_SEED = 0
TIE = 0.05  # points; smaller differences are not visible in a table with one decimal
ROUNDING = 1e-9  # points; values closer than this count as equal

SeedScores = Mapping[int, float]  # seed -> score in percent


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Args:
        std: Sample standard deviation; None for one seed.
        interval: 95 % confidence interval of the mean (Student's t); None for one seed, or if all seeds have
            the same score.
        n: Number of seeds.
    """

    mean: float
    std: float | None
    interval: Interval | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """Model a minus model b, in points.

    Args:
        difference: Mean over tasks of the mean over their paired seeds.
        interval: 95 % confidence interval of the difference. None with fewer than `FEWEST_TASKS` tasks, if
            one of them has a single paired seed or all seeds have the same difference. interval_over: "tasks"
            if the interval applies to tasks like these, "seeds" if to these tasks only; None without an
            interval.
        p: Two-sided p value of the same test over tasks as the interval; None with fewer than `FEWEST_TASKS`
            tasks.
        wins, losses, ties: Number of tasks on which a's mean is higher, lower, or equal in print.
        seed_wins, seed_losses: Number of paired runs (one task, one seed) on which a's score is higher or
            lower in print.
        by_task: Difference on each task, and its t interval over the paired seeds.
        equivalence: None without a bound or without an interval.
        paper_bootstrap: None if it was not requested, if there is one task, or if a task has one paired seed.
    """

    tasks: tuple[str, ...]
    difference: float
    interval: Interval | None
    interval_over: str | None
    p: float | None
    wins: int
    losses: int
    ties: int
    seed_wins: int
    seed_losses: int
    by_task: dict[str, Mean]
    equivalence: Equivalence | None
    paper_bootstrap: PaperBootstrap | None


class SignFlips:
    """The exact sign-flip test for a mean of independent differences, with its confidence interval.

    If each difference is distributed symmetrically around the true mean, flipping its sign around that mean
    changes nothing, whatever the variances. The true mean is then equally likely to lie in each of the gaps
    between the ordered means of all subsets of the tasks (Hartigan 1969), and p counts the subsets whose
    means lie beyond it. `cdf`, `sf` and `interval` have the names of scipy's distributions.

    Args:
        values: (..., tasks) differences. Leading dimensions are independent problems.
    """

    def __init__(self, values: ArrayLike) -> None:
        self.means = subset_means(np.asarray(values, dtype=float))
        self.flips = self.means.shape[-1] + 1  # one of them flips nothing

    def cdf(self, at: float) -> Any:
        """Return the one-sided p (...) of the hypothesis that the true mean is at most `at`."""
        return ((self.means <= at + ROUNDING).sum(-1) + 1) / self.flips

    def sf(self, at: float) -> Any:
        """Return the one-sided p (...) of the hypothesis that the true mean is at least `at`."""
        return ((self.means >= at - ROUNDING).sum(-1) + 1) / self.flips

    def interval(self, confidence: float) -> tuple[Any, Any]:
        """Return the ends (...) of the means that the two-sided test does not reject.

        Raises:
            ValueError: If there are too few tasks for this confidence.
        """
        beyond = int((1 - confidence) / 2 * self.flips)
        if beyond == 0:
            raise ValueError(f"{self.flips} flips of signs are too few for a confidence of {confidence}.")
        ordered = np.sort(self.means, axis=-1)
        return ordered[..., beyond - 1], ordered[..., -beyond]


def subset_means(values: np.ndarray) -> np.ndarray:
    """Return the mean of each non-empty subset of tasks, or of random ones above `EXACT_TASKS`.

    Args:
        values: (..., tasks).

    Returns:
        (..., subsets), with 2**tasks - 1 subsets up to `EXACT_TASKS` tasks.
    """
    tasks = values.shape[-1]
    if tasks <= EXACT_TASKS:
        chosen = np.arange(1, 2**tasks)[:, None] >> np.arange(tasks) & 1
    else:
        chosen = np.random.default_rng(RESAMPLING_SEED).integers(2, size=(2**EXACT_TASKS - 1, tasks))
        chosen = chosen[chosen.any(axis=1)]
    return values @ chosen.T.astype(float) / chosen.sum(1)


def two_sided(distribution: Any) -> Any:
    """Return the two-sided p of the hypothesis that the true mean is 0."""
    return np.minimum(1.0, 2 * np.minimum(distribution.cdf(0.0), distribution.sf(0.0)))


def over_seeds(tasks: Sequence[np.ndarray]) -> Any:
    """Return the t distribution of the mean over these tasks only, or None without noise of seeds.

    Each task's variance is estimated from its own seeds. The degrees of freedom are those of Welch and
    Satterthwaite.

    Args:
        tasks: Differences of each task's seeds, (..., seeds). Numbers of seeds may differ.
    """
    counts = np.array([task.shape[-1] for task in tasks])
    if counts.min() == 1:
        return None
    variances = np.stack([task.var(axis=-1, ddof=1) for task in tasks], axis=-1) / counts
    total = variances.sum(-1)
    if not (total > ROUNDING**2).all():
        return None
    freedom = total**2 / (variances**2 / (counts - 1)).sum(-1)
    mean = np.mean([task.mean(axis=-1) for task in tasks], axis=0)
    return stats.t(freedom, loc=mean, scale=total**0.5 / len(tasks))


def mean_over(scores: SeedScores) -> Mean:
    """Return the mean of at least one score, with its deviation and interval."""
    values = seed_values(scores)
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Mean(mean, None, None, 1)
    found = over_seeds([values])
    return Mean(mean, float(values.std(ddof=1)), None if found is None else interval_of(found), n)


def interval_of(distribution: Any) -> Interval:
    """Return the 95 % interval of a distribution as plain numbers."""
    low, high = distribution.interval(CONFIDENCE)
    return float(low), float(high)


def seed_values(scores: SeedScores) -> np.ndarray:
    """Return the scores (seeds,) in the order of their seeds."""
    return np.array([scores[seed] for seed in sorted(scores)], dtype=float)


def average(by_task: Mapping[str, SeedScores]) -> Mean:
    """Return the mean over tasks, with its interval, and its deviation over the common seeds."""
    mean = float(np.mean([mean_over(scores).mean for scores in by_task.values()]))
    found = over_seeds([seed_values(scores) for scores in by_task.values()])
    shared = set.intersection(*(set(scores) for scores in by_task.values()))
    averages = [float(np.mean([scores[seed] for scores in by_task.values()])) for seed in sorted(shared)]
    std = float(np.std(averages, ddof=1)) if len(shared) > 1 else None
    return Mean(mean, std, None if found is None else interval_of(found), len(shared))


def compare(
    a: Mapping[str, SeedScores],
    b: Mapping[str, SeedScores],
    equivalence_points: float | None = None,
    paper_bootstrap: bool = False,
) -> Comparison | None:
    """Compare two models on the tasks and seeds that both have. Return None if there are none.

    Args:
        equivalence_points: Bound of a test of equivalence; None for no such test.
        paper_bootstrap: Whether to add the paper's own test.
    """
    paired = {task: differences(a[task], b[task]) for task in a if task in b and set(a[task]) & set(b[task])}
    if not paired:
        return None
    by_task = {task: mean_over(each) for task, each in paired.items()}
    means = np.array([each.mean for each in by_task.values()])
    runs = [seed_values(each) for each in paired.values()]
    over_tasks = len(runs) >= FEWEST_TASKS
    distribution = SignFlips(means) if over_tasks else over_seeds(runs)
    wins, losses, ties = count_outcomes(means)
    seed_wins, seed_losses, _ = count_outcomes(np.concatenate(runs))
    return Comparison(
        tasks=tuple(paired),
        difference=float(means.mean()),
        interval=None if distribution is None else interval_of(distribution),
        interval_over=None if distribution is None else "tasks" if over_tasks else "seeds",
        p=float(two_sided(distribution)) if over_tasks else None,
        wins=wins,
        losses=losses,
        ties=ties,
        seed_wins=seed_wins,
        seed_losses=seed_losses,
        by_task=by_task,
        equivalence=equivalence(distribution, equivalence_points),
        paper_bootstrap=paper_test(runs) if paper_bootstrap else None,
    )


def differences(a: SeedScores, b: SeedScores) -> dict[int, float]:
    """Return a - b for each seed that both have."""
    return {seed: a[seed] - b[seed] for seed in set(a) & set(b)}


def count_outcomes(values: np.ndarray) -> tuple[int, int, int]:
    """Return the number of differences above zero, below zero, and zero in print."""
    wins, losses = int((values >= TIE).sum()), int((values <= -TIE).sum())
    return wins, losses, len(values) - wins - losses


def equivalence(distribution: Any, bound: float | None) -> Equivalence | None:
    """Return the test of equivalence within `bound` points, or None without a bound or a distribution."""
    if distribution is None or bound is None:
        return None
    return Equivalence(bound, float(max(distribution.cdf(-bound), distribution.sf(bound))))


def holm(p: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm's method."""
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(np.sort(p) * (len(p) - np.arange(len(p))))
    return [float(each) for each in np.minimum(adjusted, 1.0)]


def paper_test(tasks: Sequence[np.ndarray]) -> PaperBootstrap | None:
    """Return the paper's test, or None with one task or a single seed of a task."""
    counts = [len(task) for task in tasks]
    if len(tasks) == 1 or min(counts) == 1:
        return None
    drawn = bootstrap_weights(counts) @ np.concatenate(tasks)
    low, high = np.quantile(drawn, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return PaperBootstrap((float(low), float(high)), float(bootstrap_p(drawn)))


def bootstrap_p(drawn: np.ndarray) -> Any:
    """Return the two-sided p (...) of resampled means (..., resamples)."""
    against = np.minimum((drawn <= 0).sum(-1), (drawn >= 0).sum(-1))
    return np.minimum(1.0, 2 * (against + 1) / (drawn.shape[-1] + 1))


def bootstrap_weights(counts: Sequence[int], resamples: int = RESAMPLES) -> np.ndarray:
    """Sample tasks with replacement and, within each sampled task, its seeds.

    Args:
        counts: Number of seeds of each task.

    Returns:
        (resamples, sum of counts): the weight of each run, ordered by task and seed, in a resampled mean.
        Rows sum to 1.
    """
    rng = np.random.default_rng(RESAMPLING_SEED)
    of = np.asarray(counts)
    drawn = rng.integers(len(of), size=(resamples, len(of)))
    seeds = (rng.random((*drawn.shape, of.max())) * of[drawn][..., None]).astype(int)
    runs = (np.cumsum(of) - of)[drawn][..., None] + seeds
    shares = (np.arange(of.max()) < of[drawn][..., None]) / (len(of) * of[drawn][..., None])
    weights = np.zeros((resamples, of.sum()))
    np.add.at(weights, (np.arange(resamples)[:, None, None], runs), shares)
    return weights

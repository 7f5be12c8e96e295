"""Means over seeds and their intervals, and whether one model is better than another over tasks and seeds.

Scores are in percent. Differences are paired: two models are compared seed by seed on each task. The bootstrap draws tasks with
replacement and, within each drawn task, its seeds, so its interval covers both the choice of tasks and the noise of a fine-tuning
run (arXiv 2605.12438 tests the same way). Of one task, or where a task has one seed, one of the two draws always gives the same:
then there is neither interval nor p. With few tasks it says little about others. The draws depend on `RESAMPLING_SEED` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000
RESAMPLING_SEED = 0
TIE = 0.05  # points; less than what a table with one decimal shows

SeedScores = Mapping[int, float]  # seed -> score in percent
Interval = tuple[float, float]


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Args:
        std: sample standard deviation; None for one seed.
        interval: 95 % confidence interval of the mean (Student's t); None for one seed.
        n: seeds.
    """

    mean: float
    std: float | None
    interval: Interval | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """Model a minus model b, in points.

    Args:
        difference: mean over tasks of the mean over their paired seeds.
        interval: 95 % percentile interval of the bootstrap; None of one task, or where a task has one paired seed.
        p: two-sided, from the same bootstrap; the least possible is 2 / (RESAMPLES + 1). None where there is no interval.
        wins, losses, ties: tasks on which a's mean is higher, lower, the same in print.
        by_task: task -> difference, and its t interval over the paired seeds.
    """

    tasks: tuple[str, ...]
    difference: float
    interval: Interval | None
    p: float | None
    wins: int
    losses: int
    ties: int
    by_task: dict[str, Mean]


def mean_over(scores: SeedScores) -> Mean:
    """Mean, deviation and interval of at least one score."""
    values = np.array([scores[seed] for seed in sorted(scores)], dtype=float)
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Mean(mean, None, None, 1)
    std = float(values.std(ddof=1))
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * std / n**0.5
    return Mean(mean, std, (mean - reach, mean + reach), n)


def average(by_task: Mapping[str, SeedScores]) -> Mean:
    """Mean over tasks of their means; deviation and interval over the seeds that all of them have."""
    mean = float(np.mean([mean_over(scores).mean for scores in by_task.values()]))
    shared = set.intersection(*(set(scores) for scores in by_task.values()))
    if len(shared) < 2:
        return Mean(mean, None, None, len(shared))
    spread = mean_over({seed: float(np.mean([s[seed] for s in by_task.values()])) for seed in shared})
    assert spread.interval is not None
    reach = spread.interval[1] - spread.mean
    return Mean(mean, spread.std, (mean - reach, mean + reach), spread.n)


def compare(a: Mapping[str, SeedScores], b: Mapping[str, SeedScores]) -> Comparison | None:
    """Compare two models on the tasks and seeds that both have; None if there are none."""
    paired = {task: differences(a[task], b[task]) for task in a if task in b and set(a[task]) & set(b[task])}
    if not paired:
        return None
    by_task = {task: mean_over(each) for task, each in paired.items()}
    means = np.array([each.mean for each in by_task.values()])
    interval, p = inference([np.array([each[seed] for seed in sorted(each)]) for each in paired.values()])
    return Comparison(
        tasks=tuple(paired),
        difference=float(means.mean()),
        interval=interval,
        p=p,
        wins=int((means >= TIE).sum()),
        losses=int((means <= -TIE).sum()),
        ties=int((np.abs(means) < TIE).sum()),
        by_task=by_task,
    )


def differences(a: SeedScores, b: SeedScores) -> dict[int, float]:
    """a - b for each seed that both have."""
    return {seed: a[seed] - b[seed] for seed in sorted(set(a) & set(b))}


def inference(tasks: list[np.ndarray]) -> tuple[Interval, float] | tuple[None, None]:
    """Interval and p of the bootstrap of `tasks`; neither where tasks or seeds leave nothing to draw among."""
    if len(tasks) == 1 or min(map(len, tasks)) == 1:
        return None, None
    drawn = bootstrap(tasks)
    low, high = np.quantile(drawn, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    against = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return (float(low), float(high)), min(1.0, 2 * (against + 1) / (len(drawn) + 1))


def bootstrap(tasks: list[np.ndarray], resamples: int = RESAMPLES) -> np.ndarray:
    """Means of resampled tasks and seeds.

    Args:
        tasks: the seeds' differences of each task; numbers of seeds may differ.

    Returns:
        (resamples,) means over the drawn tasks of the means over their drawn seeds.
    """
    rng = np.random.default_rng(RESAMPLING_SEED)
    counts = np.array([len(task) for task in tasks])
    padded = np.zeros((len(tasks), counts.max()))
    for row, task in zip(padded, tasks, strict=True):
        row[: len(task)] = task
    drawn = rng.integers(len(tasks), size=(resamples, len(tasks)))
    seeds = (rng.random((*drawn.shape, counts.max())) * counts[drawn][..., None]).astype(int)
    values = padded[drawn[..., None], seeds]
    real = np.arange(counts.max()) < counts[drawn][..., None]
    return ((values * real).sum(-1) / counts[drawn]).mean(-1)

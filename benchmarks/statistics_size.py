"""Measure the size and power of the tests over tasks, and the coverage of the interval over seeds.

    python benchmarks/statistics_size.py

The size of a test is how often it rejects a true null hypothesis; its power is how often it finds a true
difference of `EFFECT` standard errors of the mean. Each cell simulates evaluations of two models that are
equally good on average, on 6, 8, 11 and 19 tasks with 3, 5 and 9 seeds, and tests them at 5 % in three ways:

- sign flips over tasks, as `clm-detour evaluate` does;
- Student's t over tasks;
- the bootstrap of the paper, as `clm-detour evaluate` did in 0.1.0.

Cells differ in the spread of the true differences between tasks (0 or 1 times the noise of a seed), in the
noise (normal, or Student's t with 3 degrees of freedom and the same variance), and in whether all tasks have
the same noise or deviations from 1 to 8. The script takes some minutes on one core, writes
benchmarks/results/statistics-size-*.json, and exits with 1 if a size of the sign-flip test is not between 3
and 6 %.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from record import record
from scipy import stats

from clm_detour.evaluate.statistics import (
    CONFIDENCE,
    SignFlips,
    bootstrap_p,
    bootstrap_weights,
    over_seeds,
    two_sided,
)

LEVEL, LEAST, MOST = 0.05, 0.03, 0.06
EFFECT = 3.0  # standard errors of the mean over tasks
SEEDS = (3, 5, 9)
DRAWS = {6: 200_000, 8: 50_000, 11: 20_000, 19: 5_000}  # fewer where a test costs more
COVERAGE_TASKS, COVERAGE_DRAWS = (2, 3, 4, 5), 100_000
BOOTSTRAP_DRAWS = 5_000
CHUNK = 4_000_000  # numbers in memory at a time
VARIANTS = tuple(itertools.product((0, 1), ("normal", "t(3)"), ("equal", "unequal")))
Test = Callable[[np.ndarray], np.ndarray]  # (draws, tasks, seeds) differences -> (draws,) p values


@dataclass(frozen=True)
class Cell:
    """A kind of simulated evaluation.

    Args:
        spread: Spread of the true differences between tasks, in units of the noise of a task's seeds.
        noise: `normal`, `t(3)`, or `skewed` for exponential differences between tasks.
        variances: `equal`, or `unequal` for tasks with different noise.
    """

    tasks: int
    seeds: int
    spread: int
    noise: str
    variances: str

    @property
    def deviations(self) -> np.ndarray:
        """Standard deviation of the noise of each task, (tasks,)."""
        return np.geomspace(1, 1 if self.variances == "equal" else 8, self.tasks)

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over tasks."""
        variances = self.deviations**2 * (self.spread**2 + 1 / self.seeds)
        return float(variances.sum() ** 0.5 / self.tasks)

    def draw(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Return (draws, tasks, seeds) differences of two models that are equally good on average."""
        shape = (draws, self.tasks, self.seeds)
        noise = rng.standard_t(3, shape) / 3**0.5 if self.noise == "t(3)" else rng.normal(size=shape)
        between = (
            rng.normal(size=shape[:2]) if self.noise != "skewed" else rng.exponential(size=shape[:2]) - 1
        )
        return (self.spread * between[..., None] + noise) * self.deviations[:, None]


def sign_flips(differences: np.ndarray) -> np.ndarray:
    """Return the p values of the test of `clm-detour evaluate`."""
    return np.asarray(two_sided(SignFlips(differences.mean(-1))))


def student(differences: np.ndarray) -> np.ndarray:
    """Return the p values of Student's t test over the means of tasks."""
    return np.asarray(stats.ttest_1samp(differences.mean(-1), 0, axis=1).pvalue)


def papers_bootstrap(differences: np.ndarray) -> np.ndarray:
    """Return the p values of the test of 0.1.0, whose resamples depend only on numbers of tasks and seeds."""
    _, tasks, seeds = differences.shape
    weights = bootstrap_weights([seeds] * tasks)
    return np.asarray(bootstrap_p(differences.reshape(len(differences), -1) @ weights.T))


def chunks(cell: Cell, draws: int, width: int) -> Iterator[np.ndarray]:
    """Yield the simulated evaluations of a cell, the same at each call, in chunks.

    Args:
        draws: Number of evaluations.
        width: Numbers that a test holds in memory for one evaluation; for a chunk it holds `CHUNK`.
    """
    rng = np.random.default_rng([cell.tasks, cell.seeds, *map(ord, repr(cell))])
    size = max(1, CHUNK // width)
    for start in range(0, draws, size):
        yield cell.draw(min(size, draws - start), rng)


def rejected(test: Test, cell: Cell, draws: int, width: int) -> dict[str, float]:
    """Return the size and the power of a test at `LEVEL`, with their standard errors."""
    found = np.zeros(2)
    for differences in chunks(cell, draws, width):
        shifted = differences + EFFECT * cell.standard_error
        found += [(test(each) <= LEVEL).sum() for each in (differences, shifted)]
    size, power = (float(share) for share in found / draws)
    error, power_error = ((share * (1 - share) / draws) ** 0.5 for share in (size, power))
    return {"size": size, "size_error": error, "power": power, "power_error": power_error, "draws": draws}


def coverage(cell: Cell) -> float:
    """Return how often the interval over seeds contains the true mean over these tasks, which is 0."""
    held = 0
    for differences in chunks(cell, COVERAGE_DRAWS, cell.tasks * cell.seeds):
        low, high = over_seeds(list(np.moveaxis(differences, 1, 0))).interval(CONFIDENCE)
        held += int(((low <= 0) & (high >= 0)).sum())
    return held / COVERAGE_DRAWS


def measured(cell: Cell) -> dict[str, dict[str, float]]:
    """Return the size and power of each test in a cell."""
    draws = DRAWS[cell.tasks]
    return {
        "sign flips": rejected(sign_flips, cell, draws, 2 ** min(cell.tasks, 16)),
        "Student's t": rejected(student, cell, draws, cell.tasks * cell.seeds),
        "paper's bootstrap": rejected(papers_bootstrap, cell, BOOTSTRAP_DRAWS, 10_000),
    }


def show(title: str, percent: dict[Cell, float]) -> None:
    """Print a Markdown table: a row for each number of tasks and seeds, a column for each way of drawing."""
    rows = dict.fromkeys((cell.tasks, cell.seeds) for cell in percent)
    columns = dict.fromkeys((cell.spread, cell.noise, cell.variances) for cell in percent)
    print(f"\n{title}\n\n| tasks | seeds |", *(f"{s}, {n}, {v} |" for s, n, v in columns))
    print("|" + "---|" * (2 + len(columns)))
    for row in rows:
        print(
            "|",
            *(f"{number} |" for number in row),
            *(f"{100 * percent[Cell(*row, *c)]:.1f} |" for c in columns),
        )
    sys.stdout.flush()


def main() -> int:
    """Measure everything, print tables, and write the record."""
    cells = [Cell(tasks, seeds, *variant) for tasks in DRAWS for seeds in SEEDS for variant in VARIANTS]
    found = {cell: measured(cell) for cell in cells}
    errors = {
        tasks: max(found[c]["sign flips"]["size_error"] for c in cells if c.tasks == tasks) for tasks in DRAWS
    }
    print("Columns: spread between tasks in units of the noise, noise, deviations of tasks.")
    print("All numbers are percentages.")
    for test in ("sign flips", "Student's t", "paper's bootstrap"):
        for what in ("size", "power"):
            show(f"{what} of {test}", {cell: found[cell][test][what] for cell in cells})
    print(
        "\nLargest standard error of a size of sign flips, by number of tasks:",
        {k: f"{100 * e:.2f}" for k, e in errors.items()},
    )

    skewed = {
        cell: {"sign flips": rejected(sign_flips, cell, DRAWS[cell.tasks], 2 ** min(cell.tasks, 16))}
        for cell in (Cell(tasks, 3, 1, "skewed", "equal") for tasks in DRAWS)
    }
    title = "size of sign flips if their assumption does not hold: exponential differences between tasks"
    show(title, {cell: each["sign flips"]["size"] for cell, each in skewed.items()})

    few = [
        Cell(tasks, seeds, 0, noise, variances)
        for tasks in COVERAGE_TASKS
        for seeds in (2, *SEEDS)
        for noise in ("normal", "t(3)")
        for variances in ("equal", "unequal")
    ]
    covered = {cell: coverage(cell) for cell in few}
    show("coverage of the 95 % interval over seeds, fewer than six tasks", covered)

    outside = [cell for cell in cells if not LEAST <= found[cell]["sign flips"]["size"] <= MOST]
    within = len(cells) - len(outside)
    print(f"\n{within} of {len(cells)} cells have a size of sign flips between 3 and 6 %.")
    if outside:
        print("The others:", *outside, sep="\n")

    results = {
        "tests": [{**asdict(cell), **each} for cell, each in {**found, **skewed}.items()],
        "coverage": [{**asdict(cell), "covered": share} for cell, share in covered.items()],
    }
    print(record("statistics-size", results, ("numpy", "scipy")))
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())

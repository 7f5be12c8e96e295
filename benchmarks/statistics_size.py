"""How often the test over tasks rejects a true null, how often it finds a real difference, and what the interval over seeds covers.

    python benchmarks/statistics_size.py

Takes some minutes on one core. Every cell draws evaluations of two models that are equally good on average, of 6, 8, 11 and 19 tasks with 3, 5
and 9 seeds, and tests them at 5 %: with sign flips over tasks, which is what `clm-detour evaluate` does; with Student's t over tasks; and with
the paper's bootstrap, which it did in 0.1.0. Cells differ in the spread of the tasks' true differences (0 or 1 times the noise of a seed), in the noise
(normal, or Student's t with 3 degrees of freedom, with the same variance) and in whether all tasks have the same noise or deviations from 1 to 8. Power is
for a true difference of `EFFECT` standard errors of the mean. The script ends with status 1 if a size of the test is not between 3 and 6 %.
Writes benchmarks/results/statistics-size-*.json.
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
    """What is drawn. `spread` is in units of the noise of a task's seeds; "skewed" is a spread between tasks that is exponential."""

    tasks: int
    seeds: int
    spread: int
    noise: str
    variances: str

    @property
    def deviations(self) -> np.ndarray:
        """(tasks,) standard deviations of the noise."""
        return np.geomspace(1, 1 if self.variances == "equal" else 8, self.tasks)

    @property
    def standard_error(self) -> float:
        """Of the mean over tasks."""
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
    """The test of `clm-detour evaluate`."""
    return np.asarray(two_sided(SignFlips(differences.mean(-1))))


def student(differences: np.ndarray) -> np.ndarray:
    """Student's t over the tasks' means."""
    return np.asarray(stats.ttest_1samp(differences.mean(-1), 0, axis=1).pvalue)


def papers_bootstrap(differences: np.ndarray) -> np.ndarray:
    """The test of 0.1.0; its resamples depend on the numbers of tasks and seeds alone."""
    _, tasks, seeds = differences.shape
    weights = bootstrap_weights([seeds] * tasks)
    return np.asarray(bootstrap_p(differences.reshape(len(differences), -1) @ weights.T))


def chunks(cell: Cell, draws: int, width: int) -> Iterator[np.ndarray]:
    """Yield the draws of a cell, always the same, in pieces for which a test holds `CHUNK` numbers, `width` for a draw."""
    rng = np.random.default_rng([cell.tasks, cell.seeds, *map(ord, repr(cell))])
    size = max(1, CHUNK // width)
    for start in range(0, draws, size):
        yield cell.draw(min(size, draws - start), rng)


def rejected(test: Test, cell: Cell, draws: int, width: int) -> dict[str, float]:
    """Return how often a test rejects at `LEVEL`, without a true difference and with one, and the standard errors of both."""
    found = np.zeros(2)
    for differences in chunks(cell, draws, width):
        shifted = differences + EFFECT * cell.standard_error
        found += [(test(each) <= LEVEL).sum() for each in (differences, shifted)]
    size, power = (float(share) for share in found / draws)
    error, power_error = ((share * (1 - share) / draws) ** 0.5 for share in (size, power))
    return {"size": size, "size_error": error, "power": power, "power_error": power_error, "draws": draws}


def coverage(cell: Cell) -> float:
    """Return how often the interval over seeds holds the true mean over these tasks, which is 0."""
    held = 0
    for differences in chunks(cell, COVERAGE_DRAWS, cell.tasks * cell.seeds):
        low, high = over_seeds(list(np.moveaxis(differences, 1, 0))).interval(CONFIDENCE)
        held += int(((low <= 0) & (high >= 0)).sum())
    return held / COVERAGE_DRAWS


def measured(cell: Cell) -> dict[str, dict[str, float]]:
    """Return what each test does in a cell."""
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
    """Run and print everything, and write it down."""
    cells = [Cell(tasks, seeds, *variant) for tasks in DRAWS for seeds in SEEDS for variant in VARIANTS]
    found = {cell: measured(cell) for cell in cells}
    errors = {
        tasks: max(found[c]["sign flips"]["size_error"] for c in cells if c.tasks == tasks) for tasks in DRAWS
    }
    print(
        "Columns: spread between tasks in units of the noise, noise, deviations of tasks. All numbers are percent."
    )
    for test in ("sign flips", "Student's t", "paper's bootstrap"):
        for what in ("size", "power"):
            show(f"{what} of {test}", {cell: found[cell][test][what] for cell in cells})
    print(
        "\nLargest standard error of the sizes of sign flips:",
        {k: f"{100 * e:.2f}" for k, e in errors.items()},
    )

    skewed = {
        cell: {"sign flips": rejected(sign_flips, cell, DRAWS[cell.tasks], 2 ** min(cell.tasks, 16))}
        for cell in (Cell(tasks, 3, 1, "skewed", "equal") for tasks in DRAWS)
    }
    show("size of sign flips where its assumption does not hold: exponential differences between tasks",
         {cell: each["sign flips"]["size"] for cell, each in skewed.items()})  # fmt: skip

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
    print(
        f"\n{len(cells) - len(outside)} of {len(cells)} cells have a size between 3 and 6 %.",
        *outside,
        sep="\n",
    )
    results = {
        "tests": [{**asdict(cell), **each} for cell, each in {**found, **skewed}.items()],
        "coverage": [{**asdict(cell), "covered": share} for cell, share in covered.items()],
    }
    print(record("statistics-size", results, ("numpy", "scipy")))
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())

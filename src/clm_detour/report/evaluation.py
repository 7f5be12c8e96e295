"""Scores on tasks: what `evaluation/tasks/summary.json` says (see `clm_detour.evaluate.summary`), as far as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from clm_detour.evaluate.statistics import Equivalence, Interval, PaperBootstrap


@dataclass(frozen=True)
class TaskScore:
    """Mean over `seeds` in percent; deviation and 95 % interval are None where there is one seed."""

    mean: float
    std: float | None
    interval: Interval | None
    seeds: int


@dataclass(frozen=True)
class TaskInfo:
    """A task; `documents` of its test split, and `left_out` what its scores are without; 0.1.0 did not count that."""

    name: str
    language: str
    kind: str
    metric: str
    documents: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class Average:
    """Mean over the tasks of a group that every model has; `of` is how many there would be."""

    group: str
    tasks: int
    of: int
    models: dict[str, TaskScore]


@dataclass(frozen=True)
class Difference:
    """`a` minus `b` in points, over tasks and on each.

    Args:
        interval: 95 %; over "tasks" it speaks of tasks like these, over "seeds" of these tasks only, as `interval_over` says.
        p: of the test over tasks; None with fewer than six tasks. `p_adjusted` is p after Holm, over all pairs of the evaluation.
        seed_wins, seed_losses: pairs of runs with one task and one seed; None in an evaluation of 0.1.0.
        by_task: task -> difference, and its interval over seeds.
    """

    a: str
    b: str
    tasks: int
    value: float
    interval: Interval | None
    interval_over: str | None
    p: float | None
    p_adjusted: float | None
    wins: int
    losses: int
    ties: int
    seed_wins: int | None
    seed_losses: int | None
    equivalence: Equivalence | None
    paper_bootstrap: PaperBootstrap | None
    by_task: dict[str, tuple[float, Interval | None]]

    def turned(self) -> Difference:
        """`b` minus `a`."""
        by_task = {task: (-value, turned(bounds)) for task, (value, bounds) in self.by_task.items()}
        papers = self.paper_bootstrap
        return replace(
            self, a=self.b, b=self.a, value=-self.value, interval=turned(self.interval), by_task=by_task,
            wins=self.losses, losses=self.wins, seed_wins=self.seed_losses, seed_losses=self.seed_wins,
            paper_bootstrap=papers and PaperBootstrap(turned_interval(papers.interval), papers.p),
        )  # fmt: skip


def turned(interval: Interval | None) -> Interval | None:
    """Of the negative."""
    return None if interval is None else turned_interval(interval)


def turned_interval(interval: Interval) -> Interval:
    """Return the interval of the negative."""
    return -interval[1], -interval[0]


@dataclass(frozen=True)
class Evaluation:
    """All of it."""

    tasks: list[TaskInfo]
    models: list[str]
    scores: dict[str, dict[str, TaskScore]]  # model -> task
    averages: list[Average]
    differences: list[Difference]
    published: dict[str, dict[str, float]]  # model -> task
    published_averages: dict[str, dict[str, float]]  # model -> group
    missing: dict[str, str]  # task -> why

    def difference(self, a: str, b: str) -> Difference | None:
        """Model a minus model b, if they were compared, one way or the other."""
        for found in self.differences:
            if {found.a, found.b} == {a, b}:
                return found if found.a == a else found.turned()
        return None


def parse_evaluation(raw: Any) -> Evaluation:
    """evaluation/tasks/summary.json."""
    groups = [group for group in raw["groups"] if group["averages"]]
    return Evaluation(
        tasks=[
            TaskInfo(
                str(t["name"]),
                str(t["language"]),
                str(t["kind"]),
                str(t["metric"]),
                int(t["n"]),
                {str(what): int(count) for what, count in t.get("left_out", {}).items()},
            )
            for t in raw["tasks"]
        ],
        models=[str(model["name"]) for model in raw["models"]],
        scores={
            model: {task: score(row) for task, row in rows.items()} for model, rows in raw["scores"].items()
        },
        averages=[
            Average(
                str(group["name"]),
                len(group["tasks"]),
                int(group["of"]),
                {model: score(row) for model, row in group["averages"].items()},
            )
            for group in groups
        ],
        differences=[difference(row) for row in raw["comparisons"]],
        published={
            model: {task: float(value) for task, value in row["scores"].items()}
            for model, row in raw["published"].items()
        },
        published_averages={
            model: {group: float(value) for group, value in row["averages"].items()}
            for model, row in raw["published"].items()
        },
        missing={str(row["task"]): str(row["reason"]) for row in raw["missing"]},
    )


def score(raw: Any) -> TaskScore:
    """A mean with what is known of its spread."""
    std = None if raw["std"] is None else float(raw["std"])
    return TaskScore(float(raw["mean"]), std, interval(raw["interval"]), len(raw.get("seeds", ())))


def difference(raw: Any) -> Difference:
    """One comparison. Interval and p of 0.1.0, which does not say what its interval is over, are the paper's bootstrap."""
    old = "interval_over" not in raw
    papers = raw if old else raw["paper_bootstrap"]
    return Difference(
        a=str(raw["a"]),
        b=str(raw["b"]),
        tasks=len(raw["tasks"]),
        value=float(raw["difference"]),
        interval=None if old else interval(raw["interval"]),
        interval_over=raw.get("interval_over"),
        p=None if old else number(raw["p"]),
        p_adjusted=number(raw.get("p_adjusted")),
        wins=int(raw["wins"]),
        losses=int(raw["losses"]),
        ties=int(raw["ties"]),
        seed_wins=raw.get("seed_wins"),
        seed_losses=raw.get("seed_losses"),
        equivalence=equivalence(raw.get("equivalence")),
        paper_bootstrap=paper_bootstrap(papers),
        by_task={
            task: (float(row["difference"]), interval(row["interval"]))
            for task, row in raw["by_task"].items()
        },
    )


def equivalence(raw: Any) -> Equivalence | None:
    """Return the test of equivalence, or None if there was none."""
    return None if raw is None else Equivalence(float(raw["bound"]), float(raw["p"]))


def paper_bootstrap(raw: Any) -> PaperBootstrap | None:
    """Return the paper's test, or None if there was none."""
    bounds = None if raw is None else interval(raw["interval"])
    return None if bounds is None else PaperBootstrap(bounds, float(raw["p"]))


def number(raw: Any) -> float | None:
    """A number, or None."""
    return None if raw is None else float(raw)


def interval(raw: Any) -> Interval | None:
    """[low, high], or None."""
    if raw is None or None in raw:
        return None
    low, high = raw
    return float(low), float(high)

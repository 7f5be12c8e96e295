"""Scores on tasks: what `evaluation/tasks/summary.json` says (see `clm_detour.evaluate.summary`), as far as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

Interval = tuple[float, float]


@dataclass(frozen=True)
class TaskScore:
    """Mean over `seeds` in percent; deviation and 95 % interval are None where there is one seed."""

    mean: float
    std: float | None
    interval: Interval | None
    seeds: int


@dataclass(frozen=True)
class TaskInfo:
    """A task; `documents` of its test split."""

    name: str
    language: str
    kind: str
    metric: str
    documents: int


@dataclass(frozen=True)
class Average:
    """Mean over the tasks of a group that every model has; `of` is how many there would be."""

    group: str
    tasks: int
    of: int
    models: dict[str, TaskScore]


@dataclass(frozen=True)
class Difference:
    """`a` minus `b` in points, over tasks and on each; no interval and no p of one task or of one seed."""

    a: str
    b: str
    tasks: int
    value: float
    interval: Interval | None
    p: float | None
    wins: int
    losses: int
    ties: int
    by_task: dict[str, tuple[float, Interval | None]]

    def turned(self) -> Difference:
        """`b` minus `a`."""
        by_task = {task: (-value, turned(bounds)) for task, (value, bounds) in self.by_task.items()}
        return replace(
            self, a=self.b, b=self.a, value=-self.value, interval=turned(self.interval),
            wins=self.losses, losses=self.wins, by_task=by_task,
        )  # fmt: skip


def turned(interval: Interval | None) -> Interval | None:
    """Of the negative."""
    return None if interval is None else (-interval[1], -interval[0])


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
            TaskInfo(str(t["name"]), str(t["language"]), str(t["kind"]), str(t["metric"]), int(t["n"]))
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
    """One comparison."""
    p = None if raw["p"] is None else float(raw["p"])
    return Difference(
        str(raw["a"]), str(raw["b"]), len(raw["tasks"]), float(raw["difference"]), interval(raw["interval"]), p,
        int(raw["wins"]), int(raw["losses"]), int(raw["ties"]),
        {task: (float(row["difference"]), interval(row["interval"])) for task, row in raw["by_task"].items()},
    )  # fmt: skip


def interval(raw: Any) -> Interval | None:
    """[low, high], or None."""
    if raw is None or None in raw:
        return None
    low, high = raw
    return float(low), float(high)

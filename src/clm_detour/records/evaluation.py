"""`summary.json`: every score of an evaluation on tasks, how the models compare, and what was published.

All scores are in percent, and differences in points. Intervals are 95 % intervals.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from clm_detour.records.store import Interval, OptionalInterval

LEVEL = 0.05
"""Level of every test."""

OVER = {"tasks": "over tasks like these", "seeds": "over seeds, on these tasks only"}
"""Words for what an interval is over."""


def significant(p: float) -> bool:
    """Return whether a test with this p rejects its hypothesis at `LEVEL`."""
    return p <= LEVEL


@dataclass(frozen=True)
class EvaluatedModel:
    """A model, where it lies, and what fine-tuning it on all tasks took."""

    name: str
    path: str = ""
    minutes: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True)
class TaskRow:
    """A task.

    Args:
        n: Number of test documents.
        left_out: What the scores do not cover, with counts (see `evaluate.tasks.left_out`); not in records of
            0.1.0.
    """

    name: str
    language: str
    kind: str
    metric: str
    n: int
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MeanScore:
    """A model's mean score on a task, or over the tasks of a group.

    Args:
        seeds: Seed -> score; empty for a group.
        std: Standard deviation over seeds; None for one seed, or for a group whose tasks share fewer than
            two.
        interval: Over seeds; None where a task has one seed or its seeds do not differ.
    """

    seeds: Annotated[dict[str, float], Field(exclude_if=lambda seeds: not seeds)] = field(
        default_factory=dict
    )
    mean: float
    std: float | None
    interval: OptionalInterval


@dataclass(frozen=True)
class Group:
    """The averages over a group of tasks. The group `all` has all tasks.

    Args:
        tasks: The tasks that every model has, over which the averages are.
        of: How many tasks the group would have if none were missing.
        averages: Model -> average; empty if no task is shared by all models.
    """

    name: str
    tasks: list[str]
    of: int
    averages: dict[str, MeanScore]


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests of the hypothesis that the true difference is at least `bound` points.

    Args:
        p: The larger of the two one-sided p values; a small one shows that the models are equivalent within
            the bound.
    """

    bound: float
    p: float

    @property
    def shown(self) -> bool:
        """Return whether the test shows that the models are equivalent."""
        return significant(self.p)

    def sentence(self, over: str | None) -> str:
        """Return what the test shows, in words.

        Args:
            over: `TaskComparison.interval_over`, which says whether the sentence is about these tasks only.
        """
        shown = "equivalent" if self.shown else "not shown to be equivalent"
        where = " on these tasks" if over == "seeds" else ""
        return f"{shown} within ±{self.bound:g} points{where} (p = {self.p:.2g})"


@dataclass(frozen=True)
class PaperBootstrap:
    """The paired bootstrap over tasks and seeds of arXiv 2605.12438.

    It has a 95 % percentile interval and a two-sided p. It rejects a true null hypothesis too often when
    tasks are few; it is kept to reproduce the paper.
    """

    interval: Interval
    p: float


@dataclass(frozen=True)
class TaskDifference:
    """The difference of two models on one task, and its interval over seeds."""

    difference: float
    interval: OptionalInterval


@dataclass(frozen=True, kw_only=True)
class TaskComparison:
    """Model `a` minus model `b`, in points.

    Args:
        tasks: The tasks that both models have.
        difference: Mean over these tasks.
        interval: Its 95 % interval; None where a task has one seed or no seeds differ, and of an evaluation
            of 0.1.0.
        interval_over: "tasks" if the interval speaks of tasks like these (from six tasks on), "seeds" if it
            speaks of these tasks only; None without an interval.
        p: Two-sided p of the test over tasks; None with fewer than six tasks.
        p_adjusted: p after Holm's correction for all pairs of the evaluation.
        wins, losses, ties: Number of tasks.
        seed_wins, seed_losses: Number of pairs of runs with one task and one seed; None in an evaluation of
            0.1.0.
        equivalence: None without `equivalence_points`.
        paper_bootstrap: None without `paper_bootstrap: true`.
    """

    a: str
    b: str
    tasks: list[str]
    difference: float
    interval: OptionalInterval
    interval_over: str | None = None
    p: float | None
    wins: int
    losses: int
    ties: int
    seed_wins: int | None = None
    seed_losses: int | None = None
    by_task: dict[str, TaskDifference]
    equivalence: Equivalence | None = None
    paper_bootstrap: PaperBootstrap | None = None
    p_adjusted: float | None = None

    def reversed(self) -> TaskComparison:
        """Return model `b` minus model `a`."""
        paper = self.paper_bootstrap
        by_task = {
            task: TaskDifference(-each.difference, negated(each.interval))
            for task, each in self.by_task.items()
        }
        return replace(
            self, a=self.b, b=self.a, difference=-self.difference, interval=negated(self.interval),
            by_task=by_task,
            wins=self.losses, losses=self.wins, seed_wins=self.seed_losses, seed_losses=self.seed_wins,
            paper_bootstrap=paper and replace(paper, interval=(-paper.interval[1], -paper.interval[0])),
        )  # fmt: skip


def negated(interval: OptionalInterval) -> OptionalInterval:
    """Return the interval of the negative of a value, from the interval of the value."""
    return None if interval is None else (-interval[1], -interval[0])


def from_any_version(content: Any) -> Any:
    """Return the content of a comparison in today's form.

    Interval and p of 0.1.0 are the paper's bootstrap.
    """
    if not isinstance(content, dict) or "interval_over" in content:
        return content
    interval = content.get("interval")
    paper = {"interval": interval, "p": content.get("p")} if interval and None not in interval else None
    return {**content, "interval": None, "p": None, "paper_bootstrap": paper}


@dataclass(frozen=True)
class Published:
    """Published scores of a model: task -> score, and group -> average over the same tasks as ours."""

    scores: dict[str, float]
    averages: dict[str, float]


@dataclass(frozen=True)
class MissingTask:
    """A task that could not be read."""

    task: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The content of `summary.json`. Models and tasks are in order of display.

    Args:
        scores: Model -> task -> score; without the tasks that a model has not finished.
        published: Model -> scores of the paper for these tasks.
    """

    name: str = ""
    models: list[EvaluatedModel]
    tasks: list[TaskRow]
    scores: dict[str, dict[str, MeanScore]]
    groups: list[Group]
    comparisons: list[Annotated[TaskComparison, BeforeValidator(from_any_version)]]
    published: dict[str, Published]
    missing: list[MissingTask]
    format: Literal[1] = 1

    @property
    def scored(self) -> list[str]:
        """The models that have a score, in order of display."""
        return [model.name for model in self.models if self.scores.get(model.name)]

    @property
    def averaged(self) -> list[Group]:
        """The groups that have averages."""
        return [group for group in self.groups if group.averages]

    def difference(self, a: str, b: str) -> TaskComparison | None:
        """Return model a minus model b, or None if the two were not compared."""
        for found in self.comparisons:
            if {found.a, found.b} == {a, b}:
                return found if found.a == a else found.reversed()
        return None

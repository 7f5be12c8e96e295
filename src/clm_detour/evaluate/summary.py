"""The content of `summary.json`: all scores of an evaluation, averages, comparisons and published scores.

Tables, figure and report are made from it:

    { "name": "en", "models":  [{"name": "detour", "path": "...", "minutes": 12.3, "flops": 1.2e15}],   in the
      order of display "tasks":   [{"name": "GAD", "language": "en", "kind": "single_label", "metric": "f1",
      "n": 534, "left_out": {"test annotations by overlap": 98}}],   n: test documents; see `tasks.left_out`
      "scores":  {model: {task: {"seeds": {"42": 81.2}, "mean": 81.0, "std": 0.4, "interval": [80.5, 81.5]}}},
      "groups":  [{"name": "all", "tasks": ["GAD", ...], "of": 11, "averages": {model: {"mean": 77.3, "std":
      0.2, "interval": [77.1, 77.5]}}}], "comparisons": [{"a": "detour", "b": "twin", "tasks": [...],
      "difference": 0.5, "interval": [0.1, 0.9], "interval_over": "tasks", "p": 0.01, "p_adjusted": 0.03,
      "wins": 8, "losses": 2, "ties": 1, "seed_wins": 37, "seed_losses": 14, "by_task": {task: {"difference":
      0.4, "interval": [0.1, 0.7]}}, "equivalence": {"bound": 1.0, "p": 0.04}, "paper_bootstrap": {"interval":
      [0.2, 0.8], "p": 0.002}}], "published": {model: {"scores": {task: 90.1}, "averages": {group: 78.0}}},
      "missing": [{"task": "COS", "reason": "..."}] }

All scores are in percent, differences in points. `interval` is a 95 % interval over seeds; it is null if a
task has one seed or all seeds have the same score. `std` is null for one seed, and for an average if its
tasks have fewer than two seeds in common.

Comparisons: with six tasks or more `interval_over` is "tasks", and interval and p apply to tasks like these.
With fewer tasks it is "seeds", the interval applies to these tasks only, and p is null. `p_adjusted` is p
after Holm's method, over all pairs that have a p. `seed_wins` and `seed_losses` count paired runs of one task
with one seed. `equivalence` is null without the key `equivalence_points`, and `paper_bootstrap` without
`paper_bootstrap: true`. Version 0.1.0 wrote neither these two nor `interval_over`, `p_adjusted`, `seed_wins`
and `seed_losses`; its interval and p are those of today's `paper_bootstrap`.

A task that a model has not finished is not in its `scores`. The averages of a group are over its `tasks`,
which are those that every model has; `of` is the number of tasks with none missing, and `averages` is empty
if there are no such tasks. There is always a group `all`. Published averages are over the same tasks, so they
differ from those in the paper if tasks are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from clm_detour.evaluate.published import normalize_name, published_scores
from clm_detour.evaluate.statistics import Mean, SeedScores, average, compare, holm, mean_over
from clm_detour.utils.files import finite

Scores = Mapping[str, Mapping[str, SeedScores]]  # model -> task -> seed -> score in percent
ALL = "all"


@dataclass(frozen=True)
class TaskRow:
    """The description of a task.

    Args:
        n: Number of test documents.
        left_out: Counts of what the scores leave out, see `tasks.left_out`.
    """

    name: str
    language: str
    kind: str
    metric: str
    n: int
    left_out: Mapping[str, int] = field(default_factory=dict)


def summarize(
    name: str,
    models: Sequence[Mapping[str, Any]],
    tasks: Sequence[TaskRow],
    scores: Scores,
    groups: Mapping[str, Sequence[str]],
    missing: Mapping[str, str],
    equivalence_points: float | None = None,
    paper_bootstrap: bool = False,
) -> dict[str, Any]:
    """Return the content of `summary.json`.

    Args:
        models: `{"name", "path", "minutes", "flops"}` of each model, in the order of display.
        tasks: The tasks that could be read.
        groups: Tasks of each group, besides `all`.
        missing: For each task without data the reason.
        equivalence_points: Bound of the tests of equivalence; None for no such tests.
        paper_bootstrap: Whether comparisons have the paper's own test too.
    """
    names = [model["name"] for model in models]
    common = [task.name for task in tasks if all(task.name in scores.get(name, {}) for name in names)]
    everything = [task.name for task in tasks] + list(missing)
    wanted = {
        ALL: everything,
        **{group: [t for t in everything if t in set(of)] for group, of in groups.items()},
    }
    shown = {group: [task for task in common if task in set(of)] for group, of in wanted.items()}
    return {
        "name": name,
        "models": [dict(model) for model in models],
        "tasks": [vars(task) for task in tasks],
        "scores": {
            model: {task: score_row(each) for task, each in scores.get(model, {}).items()} for model in names
        },
        "groups": [
            {
                "name": group,
                "tasks": of,
                "of": len(wanted[group]),
                "averages": {
                    model: spread(average({task: scores[model][task] for task in of}))
                    for model in names
                    if of
                },
            }
            for group, of in shown.items()
        ],
        "comparisons": comparisons(names, scores, equivalence_points, paper_bootstrap),
        "published": published(tasks, shown),
        "missing": [{"task": task, "reason": reason} for task, reason in missing.items()],
    }


def spread(mean: Mean) -> dict[str, Any]:
    """Return a mean as JSON."""
    interval = None if mean.interval is None else list(mean.interval)
    return {"mean": mean.mean, "std": mean.std, "interval": interval}


def score_row(seeds: SeedScores) -> dict[str, Any]:
    """Return the scores of one model on one task as JSON."""
    return {"seeds": {str(seed): seeds[seed] for seed in sorted(seeds)}, **spread(mean_over(seeds))}


def comparisons(
    names: Sequence[str], scores: Scores, equivalence_points: float | None, paper_bootstrap: bool
) -> list[dict[str, Any]]:
    """Return a row for each pair of models that have finished a task in common."""
    rows = []
    for a, b in combinations(names, 2):
        found = compare(scores.get(a, {}), scores.get(b, {}), equivalence_points, paper_bootstrap)
        if found is not None:
            by_task = {
                task: {"difference": each.mean, "interval": each.interval}
                for task, each in found.by_task.items()
            }
            row = {"a": a, "b": b, **asdict(found), "p_adjusted": None, "by_task": by_task}
            rows.append(finite(row))  # with lists in place of tuples, equal to what is read from the file
    tested = [row for row in rows if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_adjusted"] = p
    return rows


def published(tasks: Sequence[TaskRow], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the paper's scores on these tasks, with averages over the same tasks as ours."""
    rows: dict[str, Any] = {}
    for language in dict.fromkeys(task.language for task in tasks):
        for model, printed in published_scores(language).items():
            known = {normalize_name(task): score for task, score in printed.items()}
            own = {
                task.name: known[normalize_name(task.name)]
                for task in tasks
                if task.language == language and normalize_name(task.name) in known
            }
            averages = {
                group: sum(own[task] for task in of) / len(of)
                for group, of in groups.items()
                if of and all(task in own for task in of)
            }
            if own:
                rows[model] = {"scores": own, "averages": averages}
    return rows

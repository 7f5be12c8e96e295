"""`summary.json`: every score of an evaluation, what it says together, and what was published. Tables, figure and report read it.

    {
      "name": "en",
      "models":  [{"name": "detour", "path": "...", "minutes": 12.3, "flops": 1.2e15}],   in the order of display
      "tasks":   [{"name": "GAD", "language": "en", "kind": "single_label", "metric": "f1", "n": 534}],   n: test documents
      "scores":  {model: {task: {"seeds": {"42": 81.2}, "mean": 81.0, "std": 0.4, "interval": [80.5, 81.5]}}},
      "groups":  [{"name": "all", "tasks": ["GAD", ...], "of": 11,
                   "averages": {model: {"mean": 77.3, "std": 0.2, "interval": [77.1, 77.5]}}}],
      "comparisons": [{"a": "detour", "b": "twin", "tasks": [...], "difference": 0.5, "interval": [0.1, 0.9], "p": 0.01,
                       "wins": 8, "losses": 2, "ties": 1,
                       "by_task": {task: {"difference": 0.4, "interval": [0.1, 0.7]}}}],
      "published": {model: {"scores": {task: 90.1}, "averages": {group: 78.0}}},
      "missing": [{"task": "COS", "reason": "..."}]
    }

All scores are in percent, differences in points. `std` and `interval` (95 %) are null where there is one seed; those of a
comparison, and its p, where it has one task, or a task with one seed. A task that a model
has not finished is not in its `scores`. A group's averages run over its `tasks`, those that every model has, and `of` says how many
it would be with none missing; `averages` is empty if there are none. `all` is always a group. Published averages run over the same
tasks, so they are lower or higher than the paper's where tasks are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from clm_detour.evaluate.published import plain, published_scores
from clm_detour.evaluate.statistics import Mean, SeedScores, average, compare, mean_over

Scores = Mapping[str, Mapping[str, SeedScores]]  # model -> task -> seed -> score in percent
ALL = "all"


@dataclass(frozen=True)
class TaskRow:
    """What is said of a task: `n` counts its test documents."""

    name: str
    language: str
    kind: str
    metric: str
    n: int


def summarise(
    name: str,
    models: Sequence[Mapping[str, Any]],
    tasks: Sequence[TaskRow],
    scores: Scores,
    groups: Mapping[str, Sequence[str]],
    missing: Mapping[str, str],
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        models: `{"name", "path", "minutes", "flops"}` of each, in the order of display.
        tasks: those that could be read.
        groups: name -> its tasks, besides `all`.
        missing: task -> why it could not be read.
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
        "comparisons": [
            row for a, b in combinations(names, 2) if (row := comparison(a, b, scores)) is not None
        ],
        "published": published(tasks, shown),
        "missing": [{"task": task, "reason": reason} for task, reason in missing.items()],
    }


def spread(mean: Mean) -> dict[str, Any]:
    """A mean as JSON."""
    interval = None if mean.interval is None else list(mean.interval)
    return {"mean": mean.mean, "std": mean.std, "interval": interval}


def score_row(seeds: SeedScores) -> dict[str, Any]:
    """One model on one task."""
    return {"seeds": {str(seed): seeds[seed] for seed in sorted(seeds)}, **spread(mean_over(seeds))}


def comparison(a: str, b: str, scores: Scores) -> dict[str, Any] | None:
    """Model a against model b on what both have finished."""
    found = compare(scores.get(a, {}), scores.get(b, {}))
    if found is None:
        return None
    interval = None if found.interval is None else list(found.interval)
    by_task = {
        task: {"difference": each.mean, "interval": None if each.interval is None else list(each.interval)}
        for task, each in found.by_task.items()
    }
    return {
        "a": a, "b": b, "tasks": list(found.tasks), "difference": found.difference, "interval": interval,
        "p": found.p, "wins": found.wins, "losses": found.losses, "ties": found.ties, "by_task": by_task,
    }  # fmt: skip


def published(tasks: Sequence[TaskRow], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The paper's figures for these tasks, with averages over the same tasks as ours; models without any are left out."""
    rows: dict[str, Any] = {}
    for language in dict.fromkeys(task.language for task in tasks):
        for model, printed in published_scores(language).items():
            known = {plain(task): score for task, score in printed.items()}
            own = {
                task.name: known[plain(task.name)]
                for task in tasks
                if task.language == language and plain(task.name) in known
            }
            averages = {
                group: sum(own[task] for task in of) / len(of)
                for group, of in groups.items()
                if of and all(task in own for task in of)
            }
            if own:
                rows[model] = {"scores": own, "averages": averages}
    return rows

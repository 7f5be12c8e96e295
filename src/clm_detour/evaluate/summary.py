"""The content of `summary.json`: all scores of an evaluation, averages, comparisons and published scores.

Its form is `clm_detour.records.evaluation.Summary`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from clm_detour.evaluate.published import normalize_name, published_scores
from clm_detour.evaluate.statistics import Mean, SeedScores, average, compare, holm, mean_over
from clm_detour.records.evaluation import (
    EvaluatedModel,
    Group,
    MeanScore,
    MissingTask,
    Published,
    Summary,
    TaskComparison,
    TaskDifference,
    TaskRow,
)

Scores = Mapping[str, Mapping[str, SeedScores]]  # model -> task -> seed -> score in percent
ALL = "all"


def summarize(
    name: str,
    models: Sequence[Mapping[str, Any]],
    tasks: Sequence[TaskRow],
    scores: Scores,
    groups: Mapping[str, Sequence[str]],
    missing: Mapping[str, str],
    equivalence_points: float | None = None,
    paper_bootstrap: bool = False,
) -> Summary:
    """Return the content of `summary.json`.

    Args:
        models: `{"name", "path", "minutes", "flops"}` of each model, in the order of display.
        tasks: The tasks that could be read.
        scores: Model -> task -> seed -> score in percent.
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
    return Summary(
        name=name,
        models=[EvaluatedModel(**model) for model in models],
        tasks=list(tasks),
        scores={
            model: {task: score_row(each) for task, each in scores.get(model, {}).items()} for model in names
        },
        groups=[
            Group(
                group,
                of,
                len(wanted[group]),
                {
                    model: mean_score(average({task: scores[model][task] for task in of}))
                    for model in names
                    if of
                },
            )
            for group, of in shown.items()
        ],
        comparisons=comparisons(names, scores, equivalence_points, paper_bootstrap),
        published=published(tasks, shown),
        missing=[MissingTask(task, reason) for task, reason in missing.items()],
    )


def mean_score(mean: Mean, seeds: Mapping[str, float] | None = None) -> MeanScore:
    """Return the record of a mean."""
    return MeanScore(seeds=dict(seeds or {}), mean=mean.mean, std=mean.std, interval=mean.interval)


def score_row(seeds: SeedScores) -> MeanScore:
    """Return the record of one model on one task."""
    return mean_score(mean_over(seeds), {str(seed): seeds[seed] for seed in sorted(seeds)})


def comparisons(
    names: Sequence[str], scores: Scores, equivalence_points: float | None, paper_bootstrap: bool
) -> list[TaskComparison]:
    """Return the comparison of each pair of models that have finished a task in common."""
    rows = []
    for a, b in combinations(names, 2):
        found = compare(scores.get(a, {}), scores.get(b, {}), equivalence_points, paper_bootstrap)
        if found is not None:
            by_task = {task: TaskDifference(each.mean, each.interval) for task, each in found.by_task.items()}
            rows.append(
                TaskComparison(a=a, b=b, **{**vars(found), "tasks": list(found.tasks), "by_task": by_task})
            )
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    return [row if row.p is None else replace(row, p_adjusted=next(adjusted)) for row in rows]


def published(tasks: Sequence[TaskRow], groups: Mapping[str, Sequence[str]]) -> dict[str, Published]:
    """Return the paper's scores on these tasks, with averages over the same tasks as ours."""
    rows = {}
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
                rows[model] = Published(own, averages)
    return rows

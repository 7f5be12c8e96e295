"""The content of `report/numbers.json`: what the tables of the page show, unrounded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from clm_detour.figures.wording import short_names
from clm_detour.records.analysis import (
    ModelDivergence,
    NetworkComparison,
    Quotient,
    TrajectoryRecord,
    Variant,
)
from clm_detour.records.evaluation import MeanScore, Summary, TaskComparison
from clm_detour.records.phase import PhaseRecord
from clm_detour.records.run import HeldOutRecord, Score, Scores
from clm_detour.report.run import Run
from clm_detour.report.sections.costs import cost_of
from clm_detour.utils.files import finite

OF_PHASE = (
    "mask_rate", "mixture", "steps", "tokens", "batch_tokens", "first_row", "next_row", "seconds",
    "world_size", "device", "precision", "hub",
)  # fmt: skip
OF_SPLIT = ("documents", "tokens", "rows", "fullness")
OF_SCORE = ("loss", "accuracy", "predicted")
OF_COMPARISON = (
    "a", "b", "interval", "interval_over", "p", "p_adjusted", "wins", "losses", "ties", "seed_wins",
    "seed_losses",
)  # fmt: skip


def numbers(run: Run) -> dict[str, Any]:
    """Return the records of a run without curves, texts and recipe, as JSON content."""
    phases = {
        id: {
            "objective": phase.objective,
            "tokens": phase.tokens,
            "end": phase.end and of_phase(phase.end),
            "cost": phase.end and asdict(cost_of(run, id, phase.end)),
            "held_out": phase.watched and asdict(phase.watched),
        }
        for id, phase in run.phases.items()
    }
    sources = {
        name: {
            "splits": {split: pick(of, OF_SPLIT) for split, of in card.splits.items()},
            "dropped": card.dropped,
        }
        for name, card in run.sources.items()
    }
    found = {
        "run": run.name,
        "arms": run.arms,
        "phases": phases,
        "steps": [pick(step, ("title", "seconds")) for step in run.steps],
        "sources": sources,
        "held_out": run.held_out and of_held_out(run.held_out),
        "tasks": run.evaluation and of_tasks(run.evaluation),
        "comparison": run.comparison and of_comparison(run.comparison),
        "weights": [
            {
                **pick(change, ("arm", "change", "whole")),
                "phases": [change.phases[0], change.phases[-1]],
            }
            for change in run.weights
        ],
        "trajectory": run.trajectory and of_trajectory(run.trajectory),
        "gradients": {
            name: {
                "density": found.density,
                "loss": found.loss if found.density else None,
                "norms": {layer: found.layer_norm(layer) for layer in found.norms if found.density},
            }
            for name, found in run.gradients.items()
        },
        **of_needles(run),
        **({"audit": asdict(run.audit)} if run.audit else {}),
        "missing": [*run.missing, *run.left_out],
    }
    return finite(found)


def pick(record: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return some fields of a record."""
    return {name: getattr(record, name) for name in names}


def of_phase(end: PhaseRecord) -> dict[str, Any]:
    """Return the numbers of a finished phase."""
    schedule = asdict(end.schedule)
    return {
        **pick(end, OF_PHASE),
        "schedule": {"name": end.schedule.name, "peak": end.schedule.peak, "settings": schedule},
        "shares": {name: (share.target, share.observed) for name, share in end.shares.items()},
    }


def of_held_out(found: HeldOutRecord) -> dict[str, Any]:
    """Return the scores on held-out text."""
    return {
        "mask_rate": found.mask_rate,
        **({"unit": "nats per character"} if found.per_character else {}),
        "models": {name: of_scores(scores) for name, scores in found.models.items()},
        "phases": {name: of_scores(scores) for name, scores in found.phases.items()},
        **({"general": of_held_out(found.general)} if found.general else {}),
    }


def of_scores(scores: Scores) -> dict[str, Any]:
    """Return the scores of one model; None where nothing was measured."""
    return {
        "total": of_score(scores.total),
        "by_source": {source: of_score(scores.of(source)) for source in scores.by_source},
    }


def of_score(score: Score | None) -> dict[str, Any] | None:
    """Return one score."""
    return pick(score, OF_SCORE) if score else None


def of_needles(run: Run) -> dict[str, Any]:
    """Return the shares of the needle tests that were made; no keys for others."""
    found: dict[str, Any] = {}
    if run.needles:
        names = short_names(run.needles.models)
        shares = {
            kind: {names[path]: getattr(run.needles, kind)[path] for path in run.needles.models}
            for kind in ("accuracy", "control")
        }
        found["needles"] = {**pick(run.needles, ("lengths", "positions", "trials")), **shares}
    if run.needle_probe:
        models = run.needle_probe.models
        names = short_names(list(models))
        found["needle_probe"] = {
            **pick(run.needle_probe, ("lengths", "pairs")),
            "models": {names[path]: asdict(result) for path, result in models.items()},
        }
    return found


def of_tasks(found: Summary) -> dict[str, Any]:
    """Return the scores on tasks and the differences of models."""
    return {
        "tasks": [
            {**pick(task, ("name", "language", "kind", "metric", "left_out")), "documents": task.n}
            for task in found.tasks
        ],
        "models": [model.name for model in found.models],
        "scores": {
            model: {task: of_mean(score) for task, score in scores.items()}
            for model, scores in found.scores.items()
        },
        "averages": [
            {
                "group": group.name,
                "tasks": len(group.tasks),
                "of": group.of,
                "models": {model: of_mean(score) for model, score in group.averages.items()},
            }
            for group in found.averaged
        ],
        "differences": [of_difference(row) for row in found.comparisons],
        "published": {model: row.scores for model, row in found.published.items()},
        "published_averages": {model: row.averages for model, row in found.published.items()},
        "missing": {row.task: row.reason for row in found.missing},
    }


def of_mean(score: MeanScore) -> dict[str, Any]:
    """Return a mean and how many seeds it is over."""
    return {**pick(score, ("mean", "std", "interval")), "seeds": len(score.seeds)}


def of_difference(row: TaskComparison) -> dict[str, Any]:
    """Return the difference of two models."""
    return {
        **pick(row, OF_COMPARISON),
        "tasks": len(row.tasks),
        "value": row.difference,
        "equivalence": row.equivalence and asdict(row.equivalence),
        "paper_bootstrap": row.paper_bootstrap and asdict(row.paper_bootstrap),
        "by_task": {task: (each.difference, each.interval) for task, each in row.by_task.items()},
    }


def of_comparison(found: NetworkComparison) -> dict[str, Any]:
    """Return the comparison of the networks."""
    return {
        "layers": found.layers,
        "pairs": found.main.pairs,
        "parts": {
            name: {variant: of_variant(values) for variant, values in part.variants.items()}
            for name, part in found.comparisons.items()
        },
        "ratio": of_quotients(found.ratio),
        "retention": of_quotients(found.retention),
        "outliers": found.outliers,
        "hidden": found.models[found.main.models[0]].hidden,
        "texts": found.texts.distinct,
        **pick(found.texts, ("samples", "per_sample", "overlap")),
        "notes": found.notes,
    }


def of_variant(found: Variant) -> dict[str, Any]:
    """Return what one estimator of CKA says of two models."""
    return {
        "divergence": found.divergence,
        "intervals": found.intervals,
        "matrix": found.matrix or [],
        "model": of_divergence(found.model),
    }


def of_divergence(found: ModelDivergence) -> dict[str, Any]:
    """Return a divergence with its interval."""
    return {"value": found.divergence, "interval": found.interval}


def of_quotients(found: dict[str, Quotient] | None) -> dict[str, Any]:
    """Return ratio or retention by estimator."""
    return {
        name: {"value": quotient.model, "interval": quotient.interval}
        for name, quotient in (found or {}).items()
    }


def of_trajectory(found: TrajectoryRecord) -> dict[str, Any]:
    """Return the divergences of the detour's checkpoints."""
    return {
        "groups": found.groups,
        "points": [
            {
                "phase": point.phase,
                "tokens": point.total,
                "divergence": {
                    reference: {
                        variant: {
                            group: of_divergence(point.estimate(reference, variant, group))
                            for group in groups
                        }
                        for variant, groups in variants.items()
                    }
                    for reference, variants in point.divergence.items()
                },
            }
            for point in found.points
        ],
    }

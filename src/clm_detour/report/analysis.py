"""What the detour did to the network: `analysis/*.json` (see `clm_detour.analyze`), as far as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clm_detour.evaluate.statistics import Interval
from clm_detour.report.evaluation import interval

Layers = list[float | None]  # null: not a number


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, either of which may not be known."""

    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Variant:
    """One estimator of CKA between two models: of each pair of matched layers, of all layers with all, and of the models."""

    divergence: Layers
    intervals: list[Interval | None]
    matrix: list[Layers]
    model: Estimate


@dataclass(frozen=True)
class Comparison:
    """compare.json: `parts` are detour_twin, control and before, as far as they were measured."""

    layers: tuple[list[str], list[str]]  # of detour and twin
    pairs: list[tuple[str, str]]
    parts: dict[str, dict[str, Variant]]
    ratio: dict[str, Estimate]
    retention: dict[str, Estimate]
    outliers: dict[str, int]  # detour's layer -> dimensions left out where outliers are removed
    hidden: int
    texts: int
    samples: int
    per_sample: int
    overlap: bool
    notes: list[str]


@dataclass(frozen=True)
class WeightChange:
    """How far an arm's weights moved over some of its phases: layer -> kind -> |after - before| / |before|."""

    arm: str
    phases: tuple[str, str]
    change: dict[str, dict[str, float | None]]
    whole: dict[str, float | None]


@dataclass(frozen=True)
class Point:
    """A checkpoint of the detour: tokens since the start, and reference -> estimator -> group of layers -> divergence."""

    phase: str
    tokens: int
    divergence: dict[str, dict[str, dict[str, Estimate]]]


@dataclass(frozen=True)
class Trajectory:
    """trajectory.json."""

    groups: dict[str, tuple[int, int]]
    points: list[Point]


@dataclass(frozen=True)
class Supervision:
    """Of one objective: share of positions with a target, and the norm of each layer's gradient; None where no position has one."""

    density: float
    loss: float | None
    norms: dict[str, float]


def parse_comparison(raw: Any) -> Comparison:
    """analysis/compare.json."""
    main, models, texts = raw["comparisons"]["detour_twin"], raw["models"], raw["texts"]
    one, other = (models[role] for role in main["models"])
    return Comparison(
        layers=([str(name) for name in one["layers"]], [str(name) for name in other["layers"]]),
        pairs=[(str(a), str(b)) for a, b in main["pairs"]],
        parts={
            name: {key: parse_variant(values) for key, values in part["variants"].items()}
            for name, part in raw["comparisons"].items()
        },
        ratio=parse_quotients(raw["ratio"]),
        retention=parse_quotients(raw["retention"]),
        outliers={
            name: int(count) for name, count in zip(one["layers"], one.get("outliers", ()), strict=False)
        },
        hidden=int(one["hidden"]),
        texts=int(texts["distinct"]),
        samples=int(texts["samples"]),
        per_sample=int(texts["per_sample"]),
        overlap=bool(texts["overlap"]),
        notes=[str(note) for note in raw["notes"]],
    )


def parse_variant(raw: Any) -> Variant:
    """One estimator."""
    divergence = [number(value) for value in raw["divergence"]]
    intervals = [interval(bounds) for bounds in raw["interval"] or [None] * len(divergence)]
    matrix = [[number(value) for value in row] for row in raw["matrix"] or ()]
    model = Estimate(number(raw["model"]["divergence"]), interval(raw["model"]["interval"]))
    return Variant(divergence, intervals, matrix, model)


def parse_quotients(raw: Any) -> dict[str, Estimate]:
    """Ratio or retention, by estimator."""
    return {
        name: Estimate(number(row["model"]), interval(row["interval"])) for name, row in (raw or {}).items()
    }


def parse_weights(raw: Any) -> list[WeightChange]:
    """analysis/weights.json."""
    return [
        WeightChange(
            str(row["arm"]),
            (str(row["phases"][0]), str(row["phases"][-1])),
            {
                layer: {kind: number(value) for kind, value in row["change"][layer].items()}
                for layer in row["layers"]
            },
            {kind: number(value) for kind, value in row["whole"].items()},
        )
        for row in raw["changes"]
    ]


def parse_trajectory(raw: Any) -> Trajectory:
    """analysis/trajectory.json."""
    groups = {str(name): (int(first), int(last)) for name, (first, last) in raw["groups"].items()}
    points = [
        Point(str(p["phase"]), int(p["total"]), parse_divergence(p["divergence"], p["interval"]))
        for p in raw["points"]
    ]
    return Trajectory(groups, points)


def parse_divergence(raw: Any, intervals: Any) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Of one point."""
    return {
        reference: {
            variant: {
                group: Estimate(number(value), interval(intervals[reference][variant][group]))
                for group, value in by_group.items()
            }
            for variant, by_group in variants.items()
        }
        for reference, variants in raw.items()
    }


def parse_gradients(raw: Any) -> dict[str, Supervision]:
    """analysis/gradients.json."""
    return {
        name: Supervision(
            float(row["density"]),
            number(row["loss"]) if row["density"] else None,
            {
                layer: sum(value**2 for value in kinds.values()) ** 0.5
                for layer, kinds in row["norms"].items()
                if row["density"]
            },
        )
        for name, row in raw["objectives"].items()
    }


def number(raw: Any) -> float | None:
    """A number, or None for what was not one."""
    return None if raw is None else float(raw)

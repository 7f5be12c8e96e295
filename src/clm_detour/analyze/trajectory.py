"""Measure how divergence grows during the detour and how much the decay removes: `trajectory.json`.

The points are the start, every model exported during training (`train.export_at`), and the end of each phase
of the detour. The form of the result is `clm_detour.records.analysis.TrajectoryRecord`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from clm_detour.analyze.cka import half_samples, interval
from clm_detour.analyze.compare import KnownStates, Settings, common_length
from clm_detour.analyze.similarity import Measured, States, measure
from clm_detour.analyze.texts import draw_samples
from clm_detour.config.units import layer_thirds
from clm_detour.measure.states import open_encoder, read_states
from clm_detour.model.precision import best_device
from clm_detour.utils.files import finite
from clm_detour.utils.progress import progress

VARIANTS = ("biased", "debiased", "debiased_trimmed")


class Point(NamedTuple):
    """A checkpoint: its phase, tokens of that phase and since the start, and its folder."""

    phase: str
    tokens: int
    total: int
    path: str


def exported_points(phase: str, folder: Path, before: int) -> list[Point]:
    """Return the models that a phase exported during training, in order of tokens.

    Args:
        phase: Id of the phase.
        folder: Folder `exports` of the phase.
        before: Tokens of the phases before it.
    """
    found = sorted((int(path.name.removeprefix("tokens-")), path) for path in folder.glob("tokens-*"))
    return [Point(phase, tokens, before + tokens, str(path)) for tokens, path in found]


def trajectory(
    points: Sequence[Point],
    references: Mapping[str, str],
    texts: Sequence[str],
    settings: Settings,
    tokenizer: str | None = None,
    known: KnownStates | None = None,
) -> dict[str, Any]:
    """Measure every point against every reference. For the result see the docstring of the module.

    Args:
        points: The checkpoints, in order.
        references: Folder of each reference, by name.
        texts: Distinct texts.
        settings: Settings of the comparisons.
        tokenizer: Folder or hub id of the tokenizer of all models. None means each model's own.
        known: States that a comparison over the same texts and settings has computed; they are used again.
    """
    paths = [*references.values(), *(point.path for point in points)]
    settings = replace(settings, max_tokens=common_length(paths, settings.max_tokens))
    samples = draw_samples(len(texts), settings.samples, settings.per_sample, settings.seed)
    chosen = [texts[i] for i in samples.pool]
    halves = half_samples(len(chosen), settings.half_samples, settings.seed)
    computed = dict(known or {})
    missing = {path for path in paths if (path, settings.max_tokens) not in computed}
    with progress("Trajectory", len(missing) * len(chosen), "texts") as advance:

        def states_of(path: str) -> States:
            key = (path, settings.max_tokens)
            if key not in computed:
                encoder = open_encoder(path, tokenizer=tokenizer)
                ids = encoder.tokenize(chosen, settings.max_tokens)
                states = States(encoder.layers, *read_states(encoder, ids, None, advance))
                if path not in references.values():
                    return states  # a point that no other row needs
                computed[key] = states
            return computed[key]

        fixed = {name: states_of(path) for name, path in references.items()}
        layers = len(next(iter(fixed.values())).layers) - 2
        groups = {**layer_thirds(layers), "all": (0, layers - 1)}
        rows = []
        for point in points:
            states = states_of(point.path)
            measured = {
                name: measure(
                    states, reference, samples.members, halves, settings.outlier_factor, best_device()
                )
                for name, reference in fixed.items()
            }
            rows.append({**point._asdict(), **_by_group(measured, groups, settings.level)})
    return {
        "references": dict(references),
        "groups": {name: list(span) for name, span in groups.items()},
        "variants": list(VARIANTS),
        "texts": {
            "samples": settings.samples, "per_sample": settings.per_sample, "max_tokens": settings.max_tokens,
        },
        "points": rows,
    }  # fmt: skip


def _by_group(
    measured: Mapping[str, Mapping[str, Measured]], groups: Mapping[str, tuple[int, int]], level: float
) -> dict[str, Any]:
    """Return the divergences of a point and their intervals."""
    found: dict[str, Any] = {"divergence": {}, "interval": {}}
    for reference, variants in measured.items():
        for entries in found.values():
            entries[reference] = {variant: {} for variant in VARIANTS}
        for variant in VARIANTS:
            for group, (first, last) in groups.items():
                layers = slice(first + 1, last + 2)  # the embeddings come before layer 0
                curve, resamples = variants[variant].curve[layers], variants[variant].resamples[:, layers]
                value = 1 - curve.mean()
                found["divergence"][reference][variant][group] = float(value)
                bounds = interval(value, 1 - resamples.mean(1), level).tolist()
                found["interval"][reference][variant][group] = bounds
    return finite(found)

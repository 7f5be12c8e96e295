"""Compare encoders layer by layer: their divergence, its noise, and how much of it remains after the decay.

The result is `compare.json`, whose form is `clm_detour.records.analysis.NetworkComparison`.

Two numbers must not be confused:
    divergence   1 - CKA of a layer; of a model its mean over the layers (without embeddings and final norm).
    retention    divergence of A and B over the divergence of A and B *before* the decay (of `before_a` and
                 `before_b`).
The `ratio` is the divergence of A and B over that of B and the control, a second B with another seed. A
ratio of 1 means that it is no more than noise.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clm_detour.analyze.cka import half_samples, interval
from clm_detour.analyze.show import write_comparison_csv
from clm_detour.analyze.similarity import INNER, Measured, States, matched_layers, measure, of_minibatches
from clm_detour.analyze.streams import Minibatches, StreamedCKA
from clm_detour.analyze.texts import Samples, draw_samples
from clm_detour.measure.encoder import Encoder, Ids, check_measurable
from clm_detour.measure.states import open_encoder, read_states
from clm_detour.model.precision import best_device
from clm_detour.model.pretrained import longest_input, read_config
from clm_detour.records.analysis import NetworkComparison
from clm_detour.records.store import parse, write
from clm_detour.utils.files import finite
from clm_detour.utils.progress import progress

PAIRS = {"detour_twin": ("a", "b"), "control": ("b", "control"), "before": ("before_a", "before_b")}
EVERY_BLOCK = 256  # texts whose states are held at a time, when all texts of a file are compared


@dataclass(frozen=True)
class Settings:
    """Settings of a comparison. The defaults are the paper's where it gives them.

    Args:
        samples, per_sample: Number of samples, and of texts in each. Samples are disjoint if there are enough
            texts.
        max_tokens: Length at which texts are cut. It is less where a model cannot read as many tokens.
        seed: Seed of samples and half-samples.
        half_samples: Number of half-samples for the intervals.
        level: Level of the intervals.
        outlier_factor: A dimension is trimmed if its standard deviation over texts is above this times the
            layer's median one.
        tokens_per_text: Number of single tokens of each text for the token-level CKA.
    """

    samples: int = 3
    per_sample: int = 500
    max_tokens: int = 512
    seed: int = 0
    half_samples: int = 200
    level: float = 0.95
    outlier_factor: float = 5.0
    tokens_per_text: int = 8


# By folder and largest number of tokens in a text.
KnownStates = dict[tuple[str, int], States]


def compare(
    models: Mapping[str, str],
    texts: Sequence[str],
    settings: Settings = Settings(),
    source: str = "",
    every_text: bool = False,
    known: KnownStates | None = None,
) -> dict[str, Any]:
    """Compare models. For the result see the docstring of the module.

    Args:
        models: Folder or hub id for each role: `a` and `b`; `control` for the ratio; `before_a` and
            `before_b` for the retention.
        texts: Distinct texts.
        settings: Settings of the comparison.
        source: Where the texts come from, for the record.
        every_text: Whether to compare also on all of `texts`, one block at a time.
        known: Receives the states of each model, for a trajectory over the same texts and settings.

    Raises:
        UserError: If there are too few texts, or a model is not an encoder.
    """
    for path in models.values():
        check_measurable(path)
    samples = draw_samples(len(texts), settings.samples, settings.per_sample, settings.seed)
    chosen, asked = [texts[i] for i in samples.pool], settings.max_tokens
    settings = replace(settings, max_tokens=common_length(models.values(), asked))
    wanted = {name: pair for name, pair in PAIRS.items() if all(role in models for role in pair)}
    states, described, ids_of = _all_states(models, chosen, settings)
    if known is not None:
        known |= {(path, settings.max_tokens): states[role] for role, path in models.items()}
    alike = all(_same_ids(ids, ids_of["a"]) for ids in ids_of.values())
    halves = half_samples(len(chosen), settings.half_samples, settings.seed)
    device = best_device()
    measured = {}
    for name, (one, other) in wanted.items():
        pair = states[one], _without_other_tokens(states[other], alike)
        measured[name] = measure(*pair, samples.members, halves, settings.outlier_factor, device)
    if every_text:
        for name, more in _over_every_text(models, wanted, texts, settings).items():
            measured[name] |= more
    pairs = {
        name: matched_layers(states[one].layers, states[other].layers)
        for name, (one, other) in wanted.items()
    }
    return finite(
        {
            "format": 1,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "models": {
                role: {**described[role], **_outliers(states[role], settings.outlier_factor)}
                for role in models
            },
            "texts": {
                "from": source,
                "available": len(texts),
                "distinct": len(chosen),
                "samples": settings.samples,
                "per_sample": settings.per_sample,
                "max_tokens": settings.max_tokens,
                "tokens": sum(map(len, ids_of["a"])),
                "overlap": samples.overlap,
                "tokenised_alike": alike,
                "every": len(texts) if every_text else None,
            },
            "settings": {
                **{
                    key: value
                    for key, value in asdict(settings).items()
                    if key not in ("samples", "per_sample", "max_tokens")
                },
                "device": str(device),
            },
            "comparisons": {
                name: {
                    "models": list(wanted[name]),
                    "pairs": [
                        [states[wanted[name][0]].layers[i], states[wanted[name][1]].layers[j]]
                        for i, j in pairs[name]
                    ],
                    "variants": {v: _variant(m, settings.level) for v, m in variants.items()},
                }
                for name, variants in measured.items()
            },
            "ratio": _quotients(measured, "control", settings.level),
            "retention": _quotients(measured, "before", settings.level),
            "notes": _notes(settings, asked, samples, alike, states, wanted),
        }
    )


def common_length(models: Iterable[str], tokens: int) -> int:
    """Return a length of texts in tokens, at most `tokens`, that every model can read."""
    limits = (longest_input(read_config(path)) for path in models)
    return min([tokens, *(limit for limit in limits if limit is not None)])


def _all_states(
    models: Mapping[str, str], texts: list[str], settings: Settings
) -> tuple[dict[str, States], dict[str, Any], dict[str, Ids]]:
    """Return the states, descriptions and token ids of all models, with one model at a time in memory."""
    states, described, ids_of = {}, {}, {}
    with progress("Hidden states", len(models) * len(texts), "texts") as advance:
        for role, path in models.items():
            encoder = open_encoder(path)
            ids = encoder.tokenize(texts, settings.max_tokens)
            places = token_places(ids, settings.tokens_per_text, settings.seed)
            states[role] = States(encoder.layers, *read_states(encoder, ids, places, advance))
            described[role] = {
                "path": path,
                "layers": list(encoder.layers),
                "hidden": encoder.hidden_size,
                "network": "packed" if encoder.packed else "padded",
            }
            ids_of[role] = ids
    return states, described, ids_of


def token_places(ids: Ids, count: int, seed: int) -> list[np.ndarray]:
    """Return `count` positions of ordinary tokens in each text, the same whenever lengths are the same.

    In short texts positions repeat.
    """
    rng = np.random.default_rng(seed)
    draws = rng.random((len(ids), count))
    return [
        1 + (draw * max(len(text) - 2, 1)).astype(np.int64) for draw, text in zip(draws, ids, strict=True)
    ]


def _same_ids(one: Ids, other: Ids) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _without_other_tokens(states: States, alike: bool) -> States:
    """Return states without those of tokens, unless all models see the same tokens."""
    return states if alike else States(states.layers, states.means, [x[:0] for x in states.tokens])


def _over_every_text(
    models: Mapping[str, str], wanted: Mapping[str, tuple[str, str]], texts: Sequence[str], settings: Settings
) -> dict[str, dict[str, Measured]]:
    """Run all models over one block of texts after another. Memory does not grow with the number of texts."""
    roles = dict.fromkeys(role for pair in wanted.values() for role in pair)
    encoders: dict[str, Encoder] = {role: open_encoder(models[role]) for role in roles}
    pairs = {
        name: matched_layers(encoders[one].layers, encoders[other].layers)
        for name, (one, other) in wanted.items()
    }
    batches = {name: Minibatches() for name in wanted}
    streams = {name: [StreamedCKA() for _ in pairs[name]] for name in wanted}
    order = np.random.default_rng(settings.seed).permutation(len(texts))
    pieces = max(len(texts) // EVERY_BLOCK, 1)
    with progress("Every text", len(encoders) * len(texts), "texts") as advance:
        for numbers in np.array_split(order, pieces):
            block = [texts[i] for i in numbers]
            means = {
                role: read_states(encoder, encoder.tokenize(block, settings.max_tokens), None, advance)[0]
                for role, encoder in encoders.items()
            }
            for name, (one, other) in wanted.items():
                batches[name].add(means[one], means[other])
                for stream, (i, j) in zip(streams[name], pairs[name], strict=True):
                    stream.add(means[one][i], means[other][j])
    return {
        name: {
            "every_text": of_minibatches(batches[name], pairs[name]),
            "every_text_biased": _exact(streams[name]),
        }
        for name in wanted
    }


def _exact(streams: Sequence[StreamedCKA]) -> Measured:
    curve = torch.tensor([stream.value() for stream in streams], dtype=torch.float64)
    none = torch.empty(0, len(curve), dtype=torch.float64)
    return Measured(torch.empty(0, 0), none, curve, none, torch.full_like(curve, math.nan))


def _outliers(states: States, factor: float) -> dict[str, Any]:
    variances = [x.var(0) for x in states.means]
    found = states.outliers(factor)
    return {
        "outliers": [int(out.sum()) for out in found],
        "outlier_variance": [float(v[out].sum() / v.sum()) for v, out in zip(variances, found, strict=True)],
    }


def _variant(measured: Measured, level: float) -> dict[str, Any]:
    bounds = model_bounds = None
    if len(measured.resamples):
        bounds = (1 - interval(measured.curve, measured.resamples, level)).flip(-1).tolist()
        model_bounds = interval(measured.divergence(), measured.divergences(), level).tolist()
    return {
        "matrix": measured.matrix.tolist() or None,
        "cka": measured.curve.tolist(),
        "divergence": (1 - measured.curve).tolist(),
        "interval": bounds,
        "samples": (1 - measured.samples[:, INNER].mean(1)).tolist(),
        "chance": measured.chance.tolist(),
        "model": {"divergence": float(measured.divergence()), "interval": model_bounds},
    }


def _quotients(
    measured: Mapping[str, Mapping[str, Measured]], below: str, level: float
) -> dict[str, Any] | None:
    """Return the divergence of A and B over that of another comparison, by variant."""
    if below not in measured:
        return None
    above = measured["detour_twin"]
    return {name: quotient(above[name], m, level) for name, m in measured[below].items() if name in above}


def quotient(above: Measured, below: Measured, level: float) -> dict[str, Any]:
    """Return divergence over divergence, for each layer and for the models."""
    same_depth = len(above.curve) == len(below.curve)
    layers = (1 - above.curve) / (1 - below.curve) if same_depth else None
    model = above.divergence() / below.divergence()
    layer_bounds = bounds = None
    if len(above.resamples) and len(below.resamples):
        bounds = _bounds(model, above.divergences() / below.divergences(), level)
        if layers is not None:
            layer_bounds = _bounds(layers, (1 - above.resamples) / (1 - below.resamples), level)
    return {
        "layers": None if layers is None else layers.tolist(),
        "layer_intervals": layer_bounds,
        "model": float(model),
        "interval": bounds,
    }


def _bounds(value: Tensor, resamples: Tensor, level: float) -> Any:
    return interval(value, resamples, level).tolist()


def _notes(
    settings: Settings,
    asked: int,
    samples: Samples,
    alike: bool,
    states: Mapping[str, States],
    wanted: Mapping[str, tuple[str, str]],
) -> list[str]:
    notes = []
    if settings.max_tokens < asked:
        notes.append(
            f"Texts are cut at {settings.max_tokens} tokens, the most that every model can read, and not at "
            f"{asked}."
        )
    if not alike:
        notes.append(
            "The models' tokenizers differ: each model reads the texts in its own tokens; no token-level CKA."
        )
    if samples.overlap:
        notes.append(
            f"There are not {settings.samples * settings.per_sample} distinct texts, so the samples share "
            f"some: {len(samples.pool)} distinct ones in all."
        )
    if len({len(s.layers) for s in states.values()}) > 1:
        notes.append("The models differ in depth; curves match layers of equal relative depth.")
    if "control" not in wanted:
        notes.append(
            "No control: how much of the divergence two seeds of one recipe would show is not known."
        )
    return notes


def write_comparison(comparison: Mapping[str, Any], folder: Path) -> None:
    """Write CSV files, figures and `compare.json`; the JSON last, so that the rest is there if it is."""
    record = parse(NetworkComparison, comparison)
    write_comparison_csv(record, folder)
    from clm_detour.analyze.figures import save_comparison  # altair takes long to import

    save_comparison(record, folder)
    write(record, folder / "compare.json")

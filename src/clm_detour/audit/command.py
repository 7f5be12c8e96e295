"""Audit a run: measure each model once, and write what the models remember to `analysis/audit.json`.

What was measured of a model is kept beside the record. So a command that was killed goes on with the next
model, and a second one measures only what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from clm_detour.audit.inputs import Inputs
from clm_detour.audit.models import Subject, wanted
from clm_detour.audit.results import make_record
from clm_detour.audit.rows import PARTS, row_losses
from clm_detour.audit.secrets import log_probabilities, rank
from clm_detour.data.shards import checksum
from clm_detour.model import ModernBertForPretraining
from clm_detour.model.precision import best_device, computed_precision
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.audit import MASKS, AuditRecord, AuditSettings, Mask, MeasuredModel
from clm_detour.records.store import read_or_none, write
from clm_detour.utils.allocator import keep_freed_memory
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json
from clm_detour.utils.locks import exclusive
from clm_detour.utils.progress import Advance, progress

PASSES = 4  # of at most 7; see docs/audit.md for what fewer would miss
FORMAT = 1  # of what is measured; another number measures everything again


def audit_run(
    recipe: Recipe, rows: int = 1000, tokens: int = 128, alternatives: int = 1023, arms: Sequence[str] = ()
) -> AuditRecord:
    """Measure what the models of a run remember of its training data, and write the record.

    Args:
        recipe: The recipe of the run.
        rows: Members, and non-members, at most.
        tokens: Tokens of a row that are scored, from its start.
        alternatives: Other secrets among which the secret of a canary is ranked.
        arms: Arms to measure; empty for all. What was measured of other arms before is kept.

    Raises:
        UserError: If there is no such arm, a phase has not finished or has other settings, or the data is not
            prepared.
    """
    if not (recipe.folder.root / "phases").is_dir():
        raise UserError(f"{recipe.folder.root} holds no trained model; run the recipe first: clm-detour run.")
    config = recipe.config
    computed, _ = computed_precision(config.train.precision, best_device())
    settings = AuditSettings(
        rows=rows,
        tokens=min(tokens, config.data.sequence_length),
        alternatives=alternatives,
        mask_rate=1 / PARTS,
        passes=PASSES,
        precision="bf16" if computed == "bf16" else "fp32",
        seed=config.seed,
    )
    inputs = Inputs(recipe, settings)
    base, models = inputs.models
    ids = wanted(recipe, base, models, arms)
    with exclusive(recipe.folder.root, "Another run works"):
        there = [each for each in models if each.run is None or recipe.folder.phase(each.id).finished]
        keys = {each.id: key_of(inputs, each) for each in there}
        missing = [
            each for each in models if each.id in ids and known(recipe, each.id, keys[each.id]) is None
        ]
        measure_all(inputs, missing, keys)
        found = {id: known(recipe, id, key) for id, key in keys.items()}
        record = make_record(inputs, {id: measured for id, measured in found.items() if measured})
        write(record, recipe.folder.audit)
    return record


def key_of(inputs: Inputs, subject: Subject) -> str:
    """Return a hash of everything on which the numbers of a model depend."""
    recipe, settings = inputs.recipe, inputs.canary_settings
    rows = inputs.scored(subject)
    sources = {
        f"{split}/{name}": source.fingerprint
        for split, named in inputs.rows.sources.items()
        for name, source in named.items()
        if any(row.source == name for row in rows)
    }
    content: dict[str, Any] = {
        "format": FORMAT,
        "settings": asdict(inputs.settings),
        "rows": rows,
        "sources": sources,
        "canaries": settings
        and [asdict(settings), inputs.sources_with_canaries[settings.source]["held_out"]],
        "tokenizer": recipe.tokenizer.fingerprint,
        "model": weights_of(recipe, subject),
    }
    return checksum(json.dumps(content, sort_keys=True).encode())


def weights_of(recipe: Recipe, subject: Subject) -> Any:
    """Return what tells the weights of a model from those of another."""
    if subject.run is not None:
        return read_json(recipe.folder.phase(subject.run.id).record)
    files = sorted(Path(subject.path).glob("*.safetensors"))
    return [subject.path, [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]]


def known(recipe: Recipe, id: str, key: str) -> MeasuredModel | None:
    """Return what was measured of a model before, or None if that is missing or has another key."""
    path = recipe.folder.audited(id)
    try:
        found = read_or_none(MeasuredModel, path)
    except UserError:
        return None
    return found if found and found.key == key else None


def measure_all(inputs: Inputs, subjects: Sequence[Subject], keys: dict[str, str]) -> None:
    """Measure models, and write the file of each as soon as it is measured."""
    if not subjects:
        return
    keep_freed_memory()
    turns = {each.id: len(inputs.scored(each)) * (1 + inputs.settings.passes) for each in subjects}
    canaries = len(MASKS) * len(inputs.sentences)
    with progress("Audit", sum(turns.values()) + canaries * len(subjects), "texts") as advance:
        for subject in subjects:
            advance(0, note=subject.id)
            write(
                measure(inputs, subject, keys[subject.id], advance), inputs.recipe.folder.audited(subject.id)
            )


def measure(inputs: Inputs, subject: Subject, key: str, advance: Advance) -> MeasuredModel:
    """Measure one model."""
    network = ModernBertForPretraining.from_pretrained(subject.path, causal=False).eval()
    device = best_device()
    torch.nn.Module.to(network, device)
    tokenizer, rows = inputs.recipe.tokenizer, inputs.scored(subject)
    losses: dict[Mask, list[float]] = {}
    ranked: dict[Mask, list[tuple[float, float]]] = {}
    with torch.autocast(device.type, torch.bfloat16, enabled=inputs.settings.precision == "bf16"):
        for mask in MASKS:
            found = row_losses(
                network, inputs.rows, rows, mask, inputs.settings, tokenizer.vocabulary, advance
            )
            losses[mask] = found.tolist()
            scores = log_probabilities(network, inputs.sentences, mask, tokenizer.mask, advance)
            ranked[mask] = [rank(each) for each in scores]
    return MeasuredModel(
        key=key,
        losses=losses,
        ranks={mask: [place for place, _ in each] for mask, each in ranked.items()},
        exposures={mask: [exposure for _, exposure in each] for mask, each in ranked.items()},
    )

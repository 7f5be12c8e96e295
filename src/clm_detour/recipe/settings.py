"""The settings on which the weights of a phase depend. They must not change once the phase has been started.

They are written to `settings.json` in the folder of the phase when it starts, and compared each time it is
run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clm_detour.config.schema import Config, Model, Phase
from clm_detour.data.packing import PackedSource
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.prepared import PreparedData
from clm_detour.records.run_folder import PhaseFolder
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json
from clm_detour.utils.started_with import Change, changes, other_settings_error

DOCUMENTS = "documents"  # number of documents of each source: for messages only, nothing depends on it
KEYS = {  # settings whose key in the recipe differs from their key here
    "shuffle_seed": "data.shuffle_seed",
    "sequence_length": "data.sequence_length",
    "batch_rows": "train.batch_rows",
    "precision": "train.precision",
    "residual": "train.residual",
    "ema_half_life": "train.ema_half_life",
}
NOT_NAMED = {"residual": "fp32"}  # settings that older folders do not name, with their values
CHANGE_ALL_ROWS = {"tokenizer", "sequence_length", "shuffle_seed"}


def recipe_settings(config: Config, run: PhaseRun) -> dict[str, Any]:
    """Return the settings of a phase that follow from the recipe alone, without its data.

    `on_bad_loss` and `bad_loss_above` decide which steps are skipped, but are meant to be changed after a bad
    step, so they are not included. The record of a finished phase has their last values.
    """
    return {
        "seed": config.seed,
        "shuffle_seed": config.data.shuffle_seed,
        "sequence_length": config.data.sequence_length,
        "batch_rows": config.train.batch_rows,
        "precision": config.train.precision,
        "residual": config.train.residual if config.train.precision == "bf16" else "fp32",
        "ema_half_life": config.train.ema_half_life,
        "model": model_settings(config.model),
        "optimizer": asdict(config.optimizer),
        "phases": {
            step.name: {**phase_settings(step.phase), "shares": config.data.mixtures[step.phase.mixture]}
            for step in run.lineage
        },
    }


def model_settings(model: Model) -> dict[str, Any]:
    """Return the settings of the model on which weights depend. Older folders, without dropout, name none."""
    settings: dict[str, Any] = {"base": model.base, "config": model.config}
    if model.attention_output_dropout:
        settings["attention_output_dropout"] = model.attention_output_dropout
    return settings


def phase_settings(phase: Phase) -> dict[str, Any]:
    """Return the settings of a phase. Older folders do not name some of them, which had their defaults."""
    settings = asdict(phase)
    for key in ("position", "separate_head", "mask_unit"):
        if settings[key] == getattr(Phase, key):
            del settings[key]
    return settings


def data_settings(
    prepared: PreparedData, sources: Mapping[str, PackedSource], fingerprint: str
) -> dict[str, Any]:
    """Return the settings of a phase that follow from its data.

    Args:
        sources: Training rows of the sources of the phase's own mixture. Those of earlier phases are in their
            settings.
        fingerprint: Fingerprint of the tokenizer.
    """
    return {
        "tokenizer": fingerprint,
        "data": {name: source.fingerprint for name, source in sources.items()},
        DOCUMENTS: {name: prepared.count_documents(name) for name in sources},
    }


def check_unchanged(
    folder: PhaseFolder, data_dir: str, now: Mapping[str, Any], remedy: str | None = None
) -> None:
    """Check that a phase, if it was started, was started with the settings `now`.

    Args:
        data_dir: Setting `data.dir`, for the message.
        now: Settings to compare. A missing key is not compared, since its value is not known yet.
        remedy: What to do instead of choosing another `run_dir`.

    Raises:
        UserError: If it was started with other settings. The message names them.
    """
    if not folder.settings.exists():
        return
    there = {**NOT_NAMED, **read_json(folder.settings)}
    before = {key: value for key, value in there.items() if key in now}
    if changed := describe_changes(before, now):
        if remedy:
            raise other_settings_error(folder.root, changed, remedy)
        raise changed_settings_error(folder, data_dir, changed, rows_changed(before, now))


def changed_settings_error(
    folder: PhaseFolder, data_dir: str, changed: list[str], other_rows: bool
) -> UserError:
    """Return the error for a phase that was started with other settings.

    Args:
        data_dir: Setting `data.dir`.
        changed: Description of each change.
        other_rows: Whether the new settings would replace the prepared rows.
    """
    remedy = f"choose another run_dir, with data.dir={data_dir} to share the prepared data"
    if other_rows:
        remedy += (
            " (the changed sources are then prepared again and replaced there; another data.dir keeps both)"
        )
    return other_settings_error(folder.root, changed, remedy)


def rows_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two settings of a phase differ in a value on which the rows of the sources depend."""
    keys = [change.key for change in changes(before, now)]
    return any(key in CHANGE_ALL_ROWS or key.startswith("data.") for key in keys)


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a description of each difference between two settings of a phase."""
    counts = [settings.get(DOCUMENTS) or {} for settings in (before, now)]
    compared = [{key: value for key, value in each.items() if key != DOCUMENTS} for each in (before, now)]
    found = changes(*compared)
    all_rows = bool(CHANGE_ALL_ROWS & {change.key for change in found})
    descriptions = []
    for change in found:
        section, _, name = change.key.partition(".")
        if change.key == "tokenizer":
            descriptions.append("the tokenizer changed")
        elif section != "data":
            descriptions.append(str(Change(KEYS.get(change.key, change.key), change.was, change.now)))
        elif None not in (change.was, change.now) and not all_rows:  # otherwise another description covers it
            descriptions.append(describe_source_change(name, *(count.get(name) for count in counts)))
    return descriptions


def describe_source_change(name: str, was: int | None, now: int | None) -> str:
    """Return a description of a source whose documents changed, with their numbers if these differ."""
    if was is None or now is None or was == now:
        return f"source {name}: other documents"
    return f"source {name}: {was:,} documents, now {now:,}"

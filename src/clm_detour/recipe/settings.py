"""What a phase's weights depend on that must not change while it runs, and whether the phase has been trained with just that."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from clm_detour.config.schema import Config
from clm_detour.data.packing import PackedSource
from clm_detour.data.shards import TokenShards
from clm_detour.data.tokenize import SPLITS
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.stream import open_stream, prepared_folder, shard_cache
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json
from clm_detour.utils.started_with import Change, changes, other_settings_error

DOCUMENTS = "documents"  # of each source: for people, nothing depends on it
KEYS = {  # where the settings that have another name here stand in a recipe
    "shuffle_seed": "data.shuffle_seed",
    "sequence_length": "data.sequence_length",
    "batch_rows": "train.batch_rows",
    "precision": "train.precision",
    "ema_half_life": "train.ema_half_life",
}
DECIDE_ROWS = {"tokenizer", "sequence_length", "shuffle_seed"}  # with other ones all rows are others


def is_finished(config: Config, run: PhaseRun, tokenizer: Tokenizer) -> bool:
    """Whether `run` is trained to its end.

    Raises:
        UserError: its folder was started with other settings, or its data is not there.
    """
    folder = RunFolder.of(config).phase(run.id)
    sources = open_stream(config, run, tokenizer).sources
    check_settings(config, run, phase_settings(config, run, sources, tokenizer.fingerprint))
    return folder.finished


def check_settings(config: Config, run: PhaseRun, now: Mapping[str, Any]) -> None:
    """Check that the folder of `run`, if it was started, was started with the settings `now`.

    Args:
        now: as `phase_settings`; what is not known yet is left out and not compared.

    Raises:
        UserError: it was started with others; the message names them.
    """
    path = RunFolder.of(config).phase(run.id).settings
    if not path.exists():
        return
    there = {key: value for key, value in read_json(path).items() if key in now}
    if found := in_words(there, now):
        raise refused(config, run, found, is_of_data(there, now))


def refused(config: Config, run: PhaseRun, changed: list[str], other_data: bool) -> UserError:
    """Return the error for a phase that was started with other settings.

    Args:
        other_data: Whether its sources would be prepared to other rows, in place of those that are there.
    """
    data = config.data.dir
    remedy = f"choose another run_dir, with data.dir={data} to share the prepared data"
    if other_data:
        remedy += (
            " (what changed is prepared anew there, in place of the old run's; another data.dir keeps both)"
        )
    return other_settings_error(RunFolder.of(config).phase(run.id).root, changed, remedy)


def is_of_data(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether the settings differ in what the rows of the sources follow from."""
    keys = [change.key for change in changes(there, here)]
    return any(key in DECIDE_ROWS or key.startswith("data.") for key in keys)


def in_words(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between the settings of a phase, a sentence's part each."""
    counts = [settings.get(DOCUMENTS) or {} for settings in (there, here)]
    kept = [{key: value for key, value in each.items() if key != DOCUMENTS} for each in (there, here)]
    found = changes(*kept)
    rows_follow = bool(DECIDE_ROWS & {change.key for change in found})
    words = []
    for change in found:
        section, _, name = change.key.partition(".")
        if change.key == "tokenizer":
            words.append("the tokenizer changed")
        elif section != "data":
            words.append(str(Change(KEYS.get(change.key, change.key), change.was, change.now)))
        elif None not in (change.was, change.now) and not rows_follow:  # else other words say it
            words.append(source_in_words(name, *(count.get(name) for count in counts)))
    return words


def source_in_words(name: str, was: int | None, now: int | None) -> str:
    """That a source's documents are others, with their numbers where those say it."""
    if was is None or now is None or was == now:
        return f"source {name}: other documents"
    return f"source {name}: {was:,} documents, now {now:,}"


def phase_settings(
    config: Config, run: PhaseRun, sources: Mapping[str, PackedSource], tokenizer: str
) -> dict[str, Any]:
    """What decides the weights at the end of `run` and must not change once it has started.

    Args:
        sources: those of the phase's own mixture; its parents' are in theirs.
        tokenizer: its fingerprint.
    """
    return {
        **recipe_settings(config, run),
        "tokenizer": tokenizer,
        "data": {name: source.fingerprint for name, source in sources.items()},
        DOCUMENTS: {name: count_documents(config, name) for name in sources},
    }


def recipe_settings(config: Config, run: PhaseRun) -> dict[str, Any]:
    """The part of `phase_settings` that the recipe alone tells.

    `on_bad_loss` and `bad_loss_above` decide which steps are left out, but are for changing when a step went bad, so they are
    not here; the record of a finished phase has those that it ended with.
    """
    return {
        "seed": config.seed,
        "shuffle_seed": config.data.shuffle_seed,
        "sequence_length": config.data.sequence_length,
        "batch_rows": config.train.batch_rows,
        "precision": config.train.precision,
        "ema_half_life": config.train.ema_half_life,
        "model": {"base": config.model.base, "config": config.model.config},
        "optimizer": asdict(config.optimizer),
        "phases": {
            step.name: {**asdict(step.phase), "shares": config.data.mixtures[step.phase.mixture]}
            for step in run.lineage
        },
    }


def count_documents(config: Config, name: str) -> int | None:
    """Count the documents of a prepared source, held-out ones too; None where a part is not there."""
    folder, cache = prepared_folder(config, name), shard_cache(config)
    with suppress(UserError):
        return sum(TokenShards.open(f"{folder}/{split}", cache=cache).documents for split in SPLITS)
    return None

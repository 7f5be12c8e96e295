"""Whether a recipe still fits what its run folder holds: nothing is continued, or compared, with other settings or documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from clm_detour.check.data import is_of_sample
from clm_detour.config.schema import Config
from clm_detour.data.cache import is_remote
from clm_detour.data.packing import PackedSource
from clm_detour.data.prepare import is_done, origin
from clm_detour.data.shards import TokenShards
from clm_detour.data.sources import OnError, chosen_settings, read_documents
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.errors import UserError
from clm_detour.files import read_json
from clm_detour.progress import human_bytes
from clm_detour.run_folder import RunFolder
from clm_detour.settings import changes, check
from clm_detour.train.export import ABOUT
from clm_detour.train.recipe import PhaseRun, plan_arm, plan_recipe
from clm_detour.train.settings import (
    DOCUMENTS,
    check_settings,
    count_documents,
    recipe_settings,
    refused,
    source_in_words,
)
from clm_detour.train.stream import is_prepared_elsewhere, prepared_folder

BASE, SETTINGS = "base", "settings.json"
APART = (
    "files",
    "tokenizer",
    "on_error",
)  # of what shards are made from: compared in other ways, or not at all
COUNTED_BYTES = 2**22  # documents of larger sources are not counted before they are prepared


def check_started(config: Config, tokenizer: Tokenizer | None) -> None:
    """Check that the phases that the run folder holds were started with this recipe, tokenizer and documents.

    Nothing is prepared: sources whose files are others by now are told by what their shards were made from.

    Args:
        tokenizer: None where the run has yet to train it.

    Raises:
        UserError: a phase was started with others; the message says what changed.
    """
    if config.data.sample is not None:
        check(RunFolder.of(config).sample / SETTINGS, sample_settings(config))
    if config.tokenizer.train is not None:
        check(RunFolder.of(config).tokenizer / SETTINGS, tokenizer_settings(config))
    started = [
        run for run in plan_recipe(config).values() if RunFolder.of(config).phase(run.id).settings.exists()
    ]
    for run in started:
        now = recipe_settings(config, run)
        check_settings(config, run, now if tokenizer is None else {**now, "tokenizer": tokenizer.fingerprint})
    if tokenizer is None:
        return
    check_documents(config, started, tokenizer)
    check_results(config)


def sample_settings(config: Config) -> dict[str, Any]:
    """What the bundled corpus depends on."""
    sample = config.data.sample
    assert sample is not None
    return {"documents": sample.documents, "seed": sample.seed}


def tokenizer_settings(config: Config) -> dict[str, Any]:
    """What the run's own tokenizer depends on."""
    training, named = config.tokenizer.train, config.data.sources
    assert training is not None
    return {
        "vocab_size": training.vocab_size,
        "documents": training.documents,
        "sources": {name: source.path for name, source in named.items()},
        "chosen": {name: chosen_settings(source) for name, source in named.items()},
    }


def check_results(config: Config) -> None:
    """Check that results on tasks that are there were made with the recipe's protocols, documents and arms.

    Raises:
        UserError: new ones would not be comparable with them.
    """
    from clm_detour.evaluate.command import read_tasks
    from clm_detour.evaluate.finetune.experiment import data_fingerprint
    from clm_detour.evaluate.finetune.run import Options, settings_of

    tasks, folder = config.evaluate.tasks, RunFolder.of(config)
    if tasks is None or not folder.tasks.is_dir():
        return
    for arm in config.arms:
        check_arm(config, arm)
    options = Options(tuple(tasks.learning_rates), tasks.patience, tasks.pooling, tasks.precision)
    for task, splits in read_tasks(tasks)[0]:
        for settings in folder.tasks.glob(f"*/{task.name}/{SETTINGS}"):
            model = read_json(settings)["model"]
            if settings.parent.parent.name in (BASE, *config.arms):
                check(settings, settings_of(task, options, model, data_fingerprint(splits)))


def check_arm(config: Config, arm: str) -> None:
    """Check that the model of an arm that has been fine-tuned is still the arm's end.

    Raises:
        UserError: the arm ends in another phase by now.
    """
    folder, last = RunFolder.of(config), plan_arm(config, arm)[-1].id
    about = folder.model(arm) / ABOUT
    was = read_json(about).get("phase", last) if about.exists() else last
    if was != last and (folder.tasks / arm).is_dir():
        raise UserError(
            f"{folder.tasks / arm} holds results of arm {arm} when it ended in {was}, and it now ends in {last}; "
            "give the arm another name, or delete that folder."
        )


def check_documents(config: Config, started: list[PhaseRun], tokenizer: Tokenizer) -> None:
    """Check that the sources hold the documents on which phases were started.

    Raises:
        UserError: one holds others.
    """
    users: dict[str, list[PhaseRun]] = {}
    for run in started:
        for name in config.data.mixtures[run.phase.mixture]:
            users.setdefault(name, []).append(run)
    for name, runs in users.items():
        if is_remote(prepared_folder(config, name)):
            continue
        if not is_prepared_elsewhere(config, name) and (changed := change_of_source(config, name, tokenizer)):
            raise refused(config, runs[0], [changed])
        for run in runs:
            check_rows(config, run, name)


def check_rows(config: Config, run: PhaseRun, name: str) -> None:
    """Check that the rows of a source, if they are there, are those on which a phase was started."""
    folder = prepared_folder(config, name)
    try:
        rows = PackedSource.open(f"{folder}/train", config.data.sequence_length)
    except UserError:  # to be prepared
        return
    check_settings(
        config, run, {"data": {name: rows.fingerprint}, DOCUMENTS: {name: count_documents(config, name)}}
    )


def change_of_source(config: Config, name: str, tokenizer: Tokenizer) -> str | None:
    """Say in words how a source differs from what its shards were made from; None if it does not, or there are none.

    Files that have only been touched may hold what they held; preparing them shows it.
    """
    source, folder = config.data.sources[name], Path(prepared_folder(config, name))
    data = config.data
    try:
        was = TokenShards.open(folder / "train").index["made_from"]
        now = origin(source, tokenizer, data.held_out, cast(OnError, data.on_error))
    except UserError:  # no shards, or files that the run writes
        return None
    if is_done(folder, now, data.sequence_length, data.shuffle_seed):
        return None
    known, wanted = ({key: value for key, value in made.items() if key not in APART} for made in (was, now))
    for change in changes(known, wanted):
        key = {"text_field": f"data.sources.{name}.text", "held_out": "data.held_out"}.get(change.key)
        return str(change._replace(key=key or f"data.sources.{name}.{change.key}"))
    sizes = [[(Path(file["path"]).name, file["size"]) for file in made["files"]] for made in (was, now)]
    if sizes[0] == sizes[1] or is_of_sample(config, source):
        return None
    return files_in_words(config, name, was, now)


def files_in_words(config: Config, name: str, was: dict[str, Any], now: dict[str, Any]) -> str:
    """Say how a source's files changed: by its documents where they are quickly counted, else by size."""
    source = config.data.sources[name]
    before, after = (sum(file["size"] for file in made["files"]) for made in (was, now))
    if after <= COUNTED_BYTES and not source.repeat and source.format != "hub":
        documents = sum(1 for _ in read_documents(source, on_error=cast(OnError, config.data.on_error)))
        return source_in_words(name, count_documents(config, name), documents)
    return f"source {name}: {human_bytes(before)} in {len(was['files'])} files, now {human_bytes(after)} in {len(now['files'])} files"

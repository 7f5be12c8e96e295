"""Whether a recipe still fits what its run folder holds: nothing is continued, or compared, with other settings or documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from clm_detour.config.schema import Config
from clm_detour.data.cache import is_remote
from clm_detour.data.packing import PackedSource
from clm_detour.data.prepare import is_done, origin
from clm_detour.data.shards import TokenShards
from clm_detour.data.sources import OnError, chosen_settings, read_documents
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.recipe.export import ABOUT
from clm_detour.recipe.phases import PhaseRun, plan_arm, plan_recipe
from clm_detour.recipe.settings import (
    DOCUMENTS,
    check_settings,
    count_documents,
    recipe_settings,
    refused,
    source_in_words,
)
from clm_detour.recipe.stream import is_prepared_elsewhere, prepared_folder
from clm_detour.records.run_folder import RunFolder
from clm_detour.run.check.data import is_of_sample, is_quickly_read
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json
from clm_detour.utils.progress import human_bytes
from clm_detour.utils.started_with import changes, check

if TYPE_CHECKING:
    from clm_detour.evaluate.tasks.task import Splits, Task

BASE, SETTINGS = "base", "settings.json"
APART = (
    "files",
    "tokenizer",
    "on_error",
)  # of what shards are made from: compared in other ways, or not at all


def check_started(config: Config, tokenizer: Tokenizer | None, tasks: list[tuple[Task, Splits]]) -> list[str]:
    """Check that the phases that the run folder holds were started with this recipe, tokenizer and documents.

    Nothing is prepared: sources whose files are others by now are told by what their shards were made from.

    Args:
        tokenizer: None where the run has yet to train it.
        tasks: Those that are there, with their documents.

    Returns:
        Warnings that name sources of which only preparing can tell.

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
        return []
    warnings = check_documents(config, started, tokenizer)
    check_results(config, tasks)
    return warnings


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


def check_results(config: Config, read: list[tuple[Task, Splits]]) -> None:
    """Check that results on tasks that are there were made with the recipe's protocols, documents and arms.

    Raises:
        UserError: new ones would not be comparable with them.
    """
    from clm_detour.evaluate.finetune.experiment import data_fingerprint
    from clm_detour.evaluate.finetune.run import RunOptions, run_settings

    tasks, folder = config.evaluate.tasks, RunFolder.of(config)
    if tasks is None or not folder.tasks.is_dir():
        return
    for arm in config.arms:
        check_arm(config, arm)
    options = RunOptions(tuple(tasks.learning_rates), tasks.patience, tasks.pooling, tasks.precision)
    for task, splits in read:
        for settings in folder.tasks.glob(f"*/{task.name}/{SETTINGS}"):
            model = read_json(settings)["model"]
            if settings.parent.parent.name in (BASE, *config.arms):
                check(settings, run_settings(task, options, model, data_fingerprint(splits)))


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


def check_documents(config: Config, started: list[PhaseRun], tokenizer: Tokenizer) -> list[str]:
    """Check that the sources hold the documents on which phases were started.

    Returns:
        Warnings that name sources whose files are others by now, but perhaps not their documents.

    Raises:
        UserError: one holds others.
    """
    warnings = []
    users: dict[str, list[PhaseRun]] = {}
    for run in started:
        for name in config.data.mixtures[run.phase.mixture]:
            users.setdefault(name, []).append(run)
    for name, runs in users.items():
        if is_remote(prepared_folder(config, name)):
            continue
        origins = None if is_prepared_elsewhere(config, name) else changed_origins(config, name, tokenizer)
        for run in runs:
            if origins is None:
                check_rows(config, run, name)
            elif doubt := check_origins(config, run, name, *origins):
                warnings.append(doubt)
    return list(dict.fromkeys(warnings))


def check_origins(
    config: Config, run: PhaseRun, name: str, was: dict[str, Any], now: dict[str, Any]
) -> str | None:
    """Check a source that will be prepared anew against what a phase was started on.

    Args:
        was: What the shards that are there were made from, perhaps by another run since then.
        now: What they would be made from.

    Returns:
        A warning where only preparing can tell.

    Raises:
        UserError: The source holds other documents than those of the phase.
    """
    began = read_json(RunFolder.of(config).phase(run.id).settings)
    rows = rows_there(config, name)
    if rows is not None and rows.fingerprint == (began.get("data") or {}).get(name):
        documents, changed = count_documents(config, name), changed_setting(name, was, now)
        files = changed_files(was, now)
        doubt = (
            f"its files changed ({files}); preparing will show whether its documents did" if files else None
        )
    else:
        documents, changed = (began.get(DOCUMENTS) or {}).get(name), None
        doubt = (
            f"{prepared_folder(config, name)} was prepared for another run since {run.id} was started; "
            "preparing it again will show whether its documents are the same"
        )
    if doubt and not changed:
        changed = changed_number(config, name, documents)
    if changed:
        raise refused(config, run, [changed], other_data=True)
    return doubt and f"source {name}: {doubt}."


def check_rows(config: Config, run: PhaseRun, name: str) -> None:
    """Check that the rows of a source, if they are there, are those on which a phase was started."""
    if rows := rows_there(config, name):
        documents = {name: count_documents(config, name)}
        check_settings(config, run, {"data": {name: rows.fingerprint}, DOCUMENTS: documents})


def rows_there(config: Config, name: str) -> PackedSource | None:
    """Return the rows of a source as they are prepared; None where they are not."""
    try:
        return PackedSource.open(f"{prepared_folder(config, name)}/train", config.data.sequence_length)
    except UserError:
        return None


def changed_origins(
    config: Config, name: str, tokenizer: Tokenizer
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return what the shards of a source were made from and what it is now; None where they are right, or there are none."""
    source, folder, data = config.data.sources[name], Path(prepared_folder(config, name)), config.data
    try:
        was = TokenShards.open(folder / "train").index["made_from"]
        now = origin(source, tokenizer, data.held_out, cast(OnError, data.on_error))
    except UserError:  # no shards, or files that the run writes
        return None
    if is_done(folder, now, data.sequence_length, data.shuffle_seed):
        return None
    if is_of_sample(config, source):
        now["files"] = was["files"]  # the run itself writes them
    return was, now


def changed_setting(name: str, was: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Say in words the first setting of a source that differs, if one does."""
    known, wanted = ({key: value for key, value in made.items() if key not in APART} for made in (was, now))
    for change in changes(known, wanted):
        key = {"text_field": f"data.sources.{name}.text", "held_out": "data.held_out"}.get(change.key)
        return str(change._replace(key=key or f"data.sources.{name}.{change.key}"))
    return None


def changed_files(was: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Say in words how the files of a source changed; None where they have at most been touched."""
    before, after = (
        [(Path(file["path"]).name, file["size"]) for file in made["files"]] for made in (was, now)
    )
    if before == after:
        return None
    sizes = [human_bytes(sum(size for _, size in files)) for files in (before, after)]
    return f"{sizes[0]} in {in_files(before)}, now {sizes[1]} in {in_files(after)}"


def in_files(files: list[Any]) -> str:
    """Return a number of files in words."""
    return "1 file" if len(files) == 1 else f"{len(files)} files"


def changed_number(config: Config, name: str, was: int | None) -> str | None:
    """Say in words that a source has more or fewer documents than it had, where that is quickly counted."""
    source = config.data.sources[name]
    if was is None or source.repeat or is_of_sample(config, source) or not is_quickly_read(source):
        return None
    now = sum(1 for _ in read_documents(source, on_error=cast(OnError, config.data.on_error)))
    return None if was == now else source_in_words(name, was, now)

"""The data: sources that can be read, prepared shards that are whole, tasks that are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from clm_detour.config.schema import Config, FineTuning, Source
from clm_detour.data.cache import is_remote
from clm_detour.data.folders import folder_at
from clm_detour.data.packing import PackedSource, is_packed
from clm_detour.data.shards import TokenShards
from clm_detour.data.sources import OnError, check_first_record, source_stamps
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.recipe.stream import is_prepared_elsewhere, prepared_folder, shard_cache
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.progress import console

if TYPE_CHECKING:
    from clm_detour.evaluate.tasks.task import Splits, Task

COUNTED_BYTES = 2**22  # documents of larger sources are not counted before they are prepared


def check_sources(config: Config, prepared: bool = True) -> None:
    """Every source must have files whose first record can be used, but for those that the run itself will write.

    Args:
        prepared: look also at those whose rows are there; a dataset of the hub may be out of reach by then.
    """
    for name, source in config.data.sources.items():
        if is_prepared_elsewhere(config, name):
            continue
        if not prepared and is_packed(f"{prepared_folder(config, name)}/train", config.data.sequence_length):
            continue
        if not is_of_sample(config, source):
            check_first_record(source, cast(OnError, config.data.on_error))


def is_of_sample(config: Config, source: Source) -> bool:
    """Whether the run itself writes the source."""
    return config.data.sample is not None and Path(source.path).is_relative_to(RunFolder.of(config).sample)


def is_quickly_read(source: Source) -> bool:
    """Return whether all documents of a source may be read before it is prepared: its files are here, and small.

    Raises:
        UserError: it has no file.
    """
    if source.format == "hub" or is_remote(source.path):
        return False
    return sum(file["size"] for file in source_stamps(source)) <= COUNTED_BYTES


def check_shards(config: Config, tokenizer: Tokenizer, deep: bool) -> None:
    """Shards and rows that are there must be whole and of this tokenizer; those that others prepared must be there."""
    cache, rows = shard_cache(config), config.data.sequence_length
    for name in config.data.sources:
        for split in ("train", "held_out"):
            folder = folder_at(f"{prepared_folder(config, name)}/{split}", cache)
            elsewhere = is_prepared_elsewhere(config, name)
            if not folder.sizes() and not elsewhere:
                continue
            found: TokenShards | PackedSource = TokenShards.open(folder, tokenizer.fingerprint)
            if elsewhere or is_packed(folder, rows):
                found = PackedSource.open(folder, rows, tokenizer.fingerprint)
            if deep:
                found.verify()
                console.print(f"{folder}: every checksum is right", soft_wrap=True)


def check_tasks(settings: FineTuning | None) -> tuple[list[tuple[Task, Splits]], list[str]]:
    """Check that the tasks that are there can be read, learned and scored.

    Returns:
        The tasks with their documents, and warnings that name those that are not there.

    Raises:
        UserError: a task cannot be, or none of them is there.
    """
    if settings is None:
        return [], []
    from clm_detour.evaluate.finetune.task_model import check_labels, check_splits
    from clm_detour.evaluate.read_tasks import read_tasks

    read, missing = read_tasks(settings)
    for task, splits in read:
        check_splits(task, splits)
        for documents in splits.values():
            check_labels(task, documents)
    return read, [f"{task} will be left out: {reason}" for task, reason in missing.items()]

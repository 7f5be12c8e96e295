"""`clm-detour check`: everything that can fail later and can be seen now, without training."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.table import Column, Table

from clm_detour.config.rules import one_of
from clm_detour.config.schema import Config, FineTuning
from clm_detour.data.cache import is_remote
from clm_detour.data.folders import folder_at
from clm_detour.data.packing import PackedSource, is_packed
from clm_detour.data.shards import TokenShards
from clm_detour.data.sources import OnError, check_first_record
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.errors import UserError
from clm_detour.progress import console, human, human_bytes, warn
from clm_detour.run_folder import RunFolder
from clm_detour.train.launch import world_size
from clm_detour.train.recipe import check_world, plan_recipe
from clm_detour.train.schedules import phase_rate
from clm_detour.train.stream import is_prepared_elsewhere, prepared_folder, shard_cache

if TYPE_CHECKING:
    from clm_detour.plan import RecipePlan


def check_recipe(config: Config, deep: bool) -> None:
    """Check a recipe whose YAML has been read, print its phases, and say what is prepared.

    Args:
        deep: recompute the checksum of every prepared shard.

    Raises:
        UserError: the first thing found wrong.
    """
    from clm_detour.plan import make_plan

    check_writable(Path(config.run_dir))
    if not is_remote(config.data.dir):
        check_writable(Path(config.data.dir))
    if config.data.cache_dir is not None:
        check_writable(Path(config.data.cache_dir))
    world = processes()
    check_world(config, world)
    check_sources(config)
    if config.evaluate.tasks is not None:
        check_tasks(config.evaluate.tasks)
    check_start(config)
    tokenizer = existing_tokenizer(config)
    if tokenizer is not None:
        check_model(config, tokenizer)
        check_shards(config, tokenizer, deep)
    for warning in room_warnings(config, make_plan(config, tokenizer, world)):
        warn(warning)
    console.print(phase_table(config))
    console.print("Nothing wrong found.", style="green")


def processes() -> int:
    """On which `run` trains, over all machines.

    Raises:
        UserError: as `world_size`.
    """
    import torch

    return world_size(max(torch.cuda.device_count(), 1))


def room_warnings(config: Config, plan: RecipePlan) -> Iterator[str]:
    """What may not have room: a warning, since a part may be there already and activations are an estimate."""
    import torch

    if plan.sizes is None:
        return
    needed, free = (
        plan.sizes.disk + plan.sizes.peak_disk,
        shutil.disk_usage(nearest(Path(config.run_dir))).free,
    )
    if needed > free:
        yield f"The whole run takes {human_bytes(needed)} below {config.run_dir}, and {human_bytes(free)} are free there."
    memory = sum(plan.sizes.memory.values())
    if torch.cuda.is_available():
        there = torch.cuda.get_device_properties(0).total_memory
        if memory > there:
            yield (
                f"Training takes about {human_bytes(memory)} on each GPU, which has {human_bytes(there)}; lower train.micro_rows, or set it to auto."
            )


def nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())


def check_tasks(settings: FineTuning) -> None:
    """Those that are there can be read; those that are not are named.

    Raises:
        UserError: see `clm_detour.evaluate.command.read_tasks`.
    """
    from clm_detour.evaluate.command import read_tasks

    for task, reason in read_tasks(settings)[1].items():
        warn(f"{task} will be left out: {reason}")


def check_writable(folder: Path) -> None:
    """The folder, or the nearest one above it that exists, must be writable."""
    existing = nearest(folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"Cannot write below {existing}; choose another folder for {folder}.")


def check_sources(config: Config, prepared: bool = True) -> None:
    """Every source must have files whose first record has the fields it needs, but for those that the run itself will write.

    Args:
        prepared: look also at those whose rows are there; a dataset of the hub may be out of reach by then.
    """
    sample = RunFolder.of(config).sample
    for name, source in config.data.sources.items():
        if is_prepared_elsewhere(config, name):
            continue
        if not prepared and is_packed(f"{prepared_folder(config, name)}/train", config.data.sequence_length):
            continue
        made_by_the_run = config.data.sample is not None and Path(source.path).is_relative_to(sample)
        if not made_by_the_run:
            check_first_record(source, cast(OnError, config.data.on_error))


def existing_tokenizer(config: Config) -> Tokenizer | None:
    """The tokenizer, unless the run has yet to train it."""
    if config.tokenizer.path is not None:
        return load_tokenizer(config.tokenizer.path)
    folder = RunFolder.of(config).tokenizer
    return load_tokenizer(str(folder)) if (folder / "tokenizer.json").exists() else None


def check_start(config: Config) -> None:
    """What would stop training at its start: the name of the attention, a dropout that the network does not have, the loggers.

    Raises:
        UserError: the first of these.
    """
    from clm_detour.model.attention import AUTO, BACKENDS
    from clm_detour.train.start import base_config

    one_of(config.model.attention, [AUTO, *BACKENDS], "model.attention")
    base, keys = config.model.base, config.model.config or {}
    dropout = keys.get("attention_dropout", 0) if base is None else base_config(base).attention_dropout
    if dropout:
        raise UserError(
            f"The model's attention_dropout is {dropout}, with which this network cannot train; set it to 0 in "
            f"{'model.config' if base is None else 'the config.json of model.base'}."
        )
    if config.train.loggers:
        from clm_detour.train.loggers import check_logger  # Composer takes seconds to import

        for name, keys in config.train.loggers.items():
            check_logger(name, keys or {})


def check_model(config: Config, tokenizer: Tokenizer) -> None:
    """The model's config must be one that we honour, and fit the tokenizer."""
    from clm_detour.train.start import base_config, check_fit, fresh_config

    if config.model.base is not None:
        check_fit(base_config(config.model.base), tokenizer)
    else:
        check_fit(fresh_config(config.model.config or {}, tokenizer), tokenizer)


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


def phase_table(config: Config) -> Table:
    """The phases with their steps and rows."""
    names = ("phase", "objective", "tokens", "steps", "warm-up", "rows", "learning rate")
    table = Table(*(Column(name, no_wrap=True) for name in names), box=None, padding=(0, 1, 0, 0))
    for run in plan_recipe(config).values():
        phase, schedule = run.phase, run.phase.schedule
        end = phase_rate(phase)(run.duration)
        table.add_row(
            run.id,
            phase.objective + (f" {phase.mask_rate:.0%}" if phase.mask_rate else ""),
            human(run.duration),
            f"{run.steps:,}",
            f"{run.warmup_steps:,}",
            f"{run.first_row:,}-{run.next_row - 1:,}",
            f"{schedule.peak:g}" + (f" to {end:g}" if end != schedule.peak else ""),
        )
    return table

"""A recipe as a whole: what cannot work is refused, what is doubtful is told, and the phases are shown."""

from __future__ import annotations

from rich.table import Column, Table

from clm_detour.config.schema import Config
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.plan import make_plan
from clm_detour.recipe.phases import plan_recipe
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.schedules import phase_rate
from clm_detour.run.check.data import check_shards, check_sources, check_tasks
from clm_detour.run.check.doubts import doubts
from clm_detour.run.check.folders import check_folders, room_warnings
from clm_detour.run.check.model import (
    check_base_tokenizer,
    check_model,
    check_start,
    existing_tokenizer,
    tokenizer_doubts,
)
from clm_detour.run.check.started import check_started
from clm_detour.train.launch import world_size
from clm_detour.utils.progress import console, human, warn


def check_recipe(config: Config, deep: bool, sizes: bool = True) -> None:
    """Check a recipe whose YAML has been read, print its phases, and say what is doubtful.

    Args:
        deep: recompute the checksum of every prepared shard.
        sizes: warn of few steps and little held-out text too; not under `+debug`.

    Raises:
        UserError: the first thing found that cannot work.
    """
    tokenizer, warnings = refuse(config)
    if tokenizer is not None:
        check_shards(config, tokenizer, deep)
    warnings += room_warnings(config, make_plan(Recipe(config), processes()))
    warnings += all_doubts(config, tokenizer, sizes)
    console.print(phase_table(config))
    if tokenizer is not None:
        console.print(f"A text is encoded as {tokenizer.frame_example()}", soft_wrap=True)
    for warning in warnings:
        warn(warning)
    console.print(verdict(len(warnings)), style="yellow" if warnings else "green")


def verdict(warnings: int) -> str:
    """The last line of a check that found no error."""
    if not warnings:
        return "Nothing wrong found."
    return f"No errors; {warnings} warning{'' if warnings == 1 else 's'}."


def refuse(config: Config, prepared: bool = True) -> tuple[Tokenizer | None, list[str]]:
    """Check whatever could stop a run on its way, from preparing to the page, before any of it is done.

    Args:
        prepared: read the first record of sources whose rows are there too.

    Returns:
        The tokenizer, if there is one yet, and warnings.

    Raises:
        UserError: the first thing found that cannot work.
    """
    check_folders(config)
    Recipe(config).check_world_size(processes())
    make_plan(Recipe(config), read_data=False)
    check_start(config)
    tokenizer = existing_tokenizer(config)
    if tokenizer is not None:
        check_model(config, tokenizer)
    check_base_tokenizer(config, tokenizer)
    check_sources(config, prepared)
    tasks, warnings = check_tasks(config.evaluate.tasks)
    return tokenizer, warnings + check_started(config, tokenizer, tasks)


def all_doubts(config: Config, tokenizer: Tokenizer | None, sizes: bool) -> list[str]:
    """What is doubtful about the recipe and its data."""
    found = doubts(config, tokenizer, sizes)
    return found if tokenizer is None else [*found, *tokenizer_doubts(config, tokenizer)]


def processes() -> int:
    """On which `run` trains, over all machines.

    Raises:
        UserError: as `world_size`.
    """
    import torch

    return world_size(max(torch.cuda.device_count(), 1))


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

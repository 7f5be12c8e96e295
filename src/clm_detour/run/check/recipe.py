"""Check a recipe as a whole: raise the first error, collect warnings, and show the phases."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from rich.table import Column, Table

from clm_detour.analyze.run import can_be_analyzed
from clm_detour.analyze.texts import FEWEST, held_out_texts
from clm_detour.data.extend_tokenizer import check_extensible
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.plan import RecipePlan, make_plan
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.schedules import phase_rate
from clm_detour.recipe.start import is_decoder
from clm_detour.run.check.folders import check_run_folder, check_writable, room_warnings
from clm_detour.run.check.model import (
    base_warnings,
    check_base_tokenizer,
    check_start,
    check_tokenizer,
    tokenizer_warnings,
)
from clm_detour.run.check.sources import check_first_records, check_shards, recipe_sources
from clm_detour.run.check.started import check_started
from clm_detour.run.check.tasks import check_tasks
from clm_detour.run.check.warnings import (
    comparison_warnings,
    count_held_out,
    held_out_warnings,
    share_warnings,
    step_warnings,
)
from clm_detour.train.launch import world_size
from clm_detour.utils.gpus import smallest_memory
from clm_detour.utils.progress import console, human, shortened, warn


def check_recipe(recipe: Recipe, deep: bool, size_warnings: bool = True) -> None:
    """Check a recipe, print its phases, and print what may be unintended.

    Args:
        deep: Whether to compute the checksums of all prepared shards again.
        size_warnings: Whether to warn of few steps and little held-out text; not under `+debug`.

    Raises:
        UserError: For the first error that is found.
    """
    warnings = check_before_run(recipe)
    if recipe.has_tokenizer:
        check_shards(recipe_sources(recipe.prepared, recipe.folder).values(), recipe.tokenizer, deep)
    warnings += plan_with_warnings(recipe, size_warnings)[1]
    console.print(phase_table(recipe.phases.values()))
    if recipe.has_tokenizer:
        console.print(f"A text is encoded as {recipe.tokenizer.frame_example()}", soft_wrap=True)
    for warning in warnings:
        warn(warning)
    count = f"No errors; {len(warnings)} warning{'' if len(warnings) == 1 else 's'}."
    console.print(count if warnings else "Nothing wrong found.", style="yellow" if warnings else "green")


def check_before_run(recipe: Recipe, read_prepared: bool = True) -> list[str]:
    """Raise UserError for the first error that could stop a run between preparing and the page.

    Args:
        read_prepared: Whether to read the first record of prepared sources, too.

    Returns:
        Warnings.
    """
    config, folder = recipe.config, recipe.folder
    log_dirs = [(options or {}).get("log_dir") for options in config.train.loggers.values()]  # TensorBoard's
    check_run_folder(folder, recipe.phases, recipe.arms)
    check_writable(config.data.dir, config.data.cache_dir, *log_dirs)
    recipe.check_world_size(training_processes())
    make_plan(recipe, read_data=False)
    check_start(config.model, config.train.loggers)
    if recipe.has_original_tokenizer:
        original = load_tokenizer(recipe.original_tokenizer_path)
        check_tokenizer(config.model, recipe.original_tokenizer_path, original)
        if config.tokenizer.add is not None:
            check_extensible(original)
        if any(run.phase.mask_unit == "word" for run in recipe.phases.values()):
            _ = original.vocabulary_of_words
    base, tasks = config.model.base, config.evaluate.tasks
    if tasks is not None and base is not None and not is_decoder(base):  # a decoder is not fine-tuned
        check_base_tokenizer(base)
    sources = recipe_sources(recipe.prepared, folder)
    check_first_records(sources.values(), read_prepared)
    warnings = list(base_warnings(base))
    if tasks is not None:
        last_phases = {arm: phases[-1].id for arm, phases in recipe.arms.items()}
        warnings += check_tasks(tasks, folder, last_phases, recipe.has_tokenizer)
    return warnings + check_started(recipe, sources)


def plan_with_warnings(recipe: Recipe, size_warnings: bool = True) -> tuple[RecipePlan, list[str]]:
    """Return the plan of a recipe, and warnings of what works but may be unintended."""
    config = recipe.config
    tokenizer = recipe.tokenizer if recipe.has_tokenizer else None
    plan = make_plan(recipe, training_processes(), gpu_memory=smallest_memory())
    used = list(dict.fromkeys(run.phase.mixture for run in recipe.phases.values()))
    mixtures = {name: config.data.mixtures[name] for name in used}
    warnings = [*room_warnings(plan, recipe.folder, recipe.arms), *share_warnings(mixtures)]
    if size_warnings:
        warnings += step_warnings(recipe.phases.values())
        domain = recipe.domain_sources
        trained = dict.fromkeys(name for shares in mixtures.values() for name in shares)
        sources = recipe_sources(recipe.prepared, recipe.folder)
        general = [] if config.evaluate.general is None else [config.evaluate.general]
        measured = dict.fromkeys([*(domain if config.train.evaluate_every is None else trained), *general])
        counts = {name: count_held_out(sources[name], recipe.has_tokenizer) for name in measured}
        warnings += held_out_warnings(counts, domain, config.evaluate)
        if can_be_analyzed(recipe.arms):
            readable = tokenizer is not None and all(sources[name].has_held_out for name in domain)
            read_texts = partial(held_out_texts, recipe, FEWEST) if readable else None
            warnings += comparison_warnings([counts[name] for name in domain], read_texts)
    if tokenizer is not None:
        path = recipe.original_tokenizer_path
        warnings += tokenizer_warnings(config.model.base, path, load_tokenizer(path))
    return plan, warnings


def training_processes() -> int:
    """Return the number of processes on which `clm-detour run` trains, over all machines."""
    return world_size(max(torch.cuda.device_count(), 1))


def phase_table(phases: Iterable[PhaseRun]) -> Table:
    """Return a table of the phases with their steps, rows and learning rates."""
    names = ("phase", "objective", "tokens", "steps", "warm-up", "rows", "learning rate")
    table = Table(*(Column(name, no_wrap=True) for name in names), box=None, padding=(0, 1, 0, 0))
    for run in phases:
        phase, schedule = run.phase, run.phase.schedule
        end = phase_rate(phase)(run.duration)
        table.add_row(
            shortened(run.id, max(console.width - 58, 12)),
            str(run.objective),
            human(run.duration),
            f"{run.steps:,}",
            f"{run.warmup_steps:,}",
            f"{run.first_row:,}-{run.next_row - 1:,}",
            f"{schedule.peak:g}" + (f" to {end:g}" if end != schedule.peak else ""),
        )
    return table

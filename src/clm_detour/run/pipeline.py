"""Run a whole recipe: sample -> tokenizer -> rows -> phases -> models -> scores -> analysis -> page.

`run_steps` lists the steps in order. `clm_detour.run.engine` decides which of them are done and skipped.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from clm_detour.analyze.run import can_be_analyzed
from clm_detour.config.loading import save_config
from clm_detour.config.schema import Config
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.plan import RecipePlan, print_plan
from clm_detour.recipe.export import export_arm
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.run import Arms, PlannedPhase, PlanRecord
from clm_detour.records.store import write
from clm_detour.run import after_training as after
from clm_detour.run.add_tokens import add_tokens, count_addition_steps
from clm_detour.run.before_training import count_steps, prepare_sources, prepare_tokenizer
from clm_detour.run.check import check_before_run, plan_with_warnings
from clm_detour.run.check.attention import check_attention
from clm_detour.run.check.model import check_tokenizer
from clm_detour.run.check.sources import check_shards, recipe_sources
from clm_detour.run.engine import Step, StepRunner
from clm_detour.run.held_out import held_out_step
from clm_detour.train import require_composer
from clm_detour.train.launch import is_first_node, launch_phase
from clm_detour.train.nested import check_started_once
from clm_detour.utils.environment import describe_environment
from clm_detour.utils.files import write_json
from clm_detour.utils.locks import exclusive
from clm_detour.utils.parallel import LOCAL, Engine
from clm_detour.utils.progress import warn


def run_recipe(recipe: Recipe | Config, size_warnings: bool = True, engine: Engine = LOCAL) -> int:
    """Run every step of a recipe that is not done.

    Whatever could stop the run is checked before anything is prepared. A step after training that fails is
    left out of the page, and its error is raised once the page is written. Machines other than the first run
    only their share of the phases.

    Args:
        recipe: Recipe, or its config.
        size_warnings: Whether to warn of few steps and little held-out text; not under `+debug`.
        engine: Where the data is prepared and the models are fine-tuned: on this machine, or on a cluster.

    Returns:
        Number of steps that had something to do.

    Raises:
        UserError: If the recipe cannot be run.
    """
    check_started_once("clm-detour run")
    recipe = recipe if isinstance(recipe, Recipe) else Recipe(recipe)
    if not all(recipe.folder.phase(id).finished for id in recipe.phases):
        require_composer()
    if not is_first_node():
        return sum(launch_phase(recipe, phase) for phase in recipe.phases.values())
    for warning in check_before_run(recipe, read_prepared=False):
        warn(warning)
    check_attention(recipe.config.model.attention)
    with exclusive(recipe.folder.root, "Another run works"):
        return run_steps(recipe, size_warnings, engine)


def run_steps(recipe: Recipe, size_warnings: bool, engine: Engine) -> int:
    """Run the steps of a recipe in their order, and return how many had something to do."""
    config, folder = recipe.config, recipe.folder
    runner = StepRunner(folder.steps, steps_before_training(recipe) + steps_from_training(recipe))
    with serving_data(engine, recipe):
        prepare_tokenizer(runner, config.data, config.tokenizer.train, folder)
        if config.tokenizer.train is not None:
            path = recipe.original_tokenizer_path
            check_tokenizer(config.model, path, load_tokenizer(path))
        add_tokens(runner, recipe)
        prepare_sources(runner, recipe.prepared, recipe.tokenizer, recipe.longest_document)
    check_shards(recipe_sources(recipe.prepared, folder).values(), recipe.tokenizer, deep=False)
    finished = [recipe.is_finished(phase) for phase in recipe.phases.values()]  # also compares their settings
    if not all(finished):
        show_plan(*plan_with_warnings(recipe, size_warnings), folder.plan)
    save_config(config, folder.config)
    arms = {arm: [phase.id for phase in phases] for arm, phases in recipe.arms.items()}
    write(arms, folder.arms, Arms)

    for id, phase in recipe.phases.items():
        train = partial(launch_phase, recipe, phase)
        runner.run(Step(f"phase {id}", f"Train {id}", train, outputs=[folder.phase(id).record]))

    for arm, phases in recipe.arms.items():
        export = partial(export_arm, recipe, arm, folder.model(arm))
        runner.run_optional(after.export_step(arm, phases[-1].id, folder, export))
    runner.run_optional(held_out_step(recipe))
    runner.run_optional(after.fill_masks_step(recipe))
    if config.evaluate.tasks is not None:
        models = after.with_tokenizers(after.model_paths(config.model.base, folder, recipe.arms), recipe)
        runner.run_optional(after.tasks_step(config.evaluate.tasks, models, folder, engine))
    if can_be_analyzed(recipe.arms):
        runner.run_optional(after.analysis_step(recipe))
    if config.train.loggers:
        runner.run_optional(after.scores_step(recipe))
    if runner.ran or not folder.environment.exists():
        write_json(folder.environment, describe_environment())
    runner.run(after.report_step(folder))
    if runner.failed:
        raise runner.failed[0]
    return runner.ran


def steps_before_training(recipe: Recipe) -> int:
    """Return the number of steps that prepare the data."""
    counted = count_steps(recipe.config.data, recipe.config.tokenizer.train, recipe.prepared)
    return counted + count_addition_steps(recipe)


def serving_data(engine: Engine, recipe: Recipe) -> AbstractContextManager[None]:
    """Return the block in which an engine prepares the data of a recipe."""
    data = recipe.config.data
    sources = [source.path for source in data.sources.values()]
    return engine.serving([recipe.folder.root, Path(data.dir)], sources)


def steps_from_training(recipe: Recipe) -> int:
    """Return the number of steps of `run_steps` from the first phase to the page."""
    scores = 2 + (recipe.config.evaluate.tasks is not None) + can_be_analyzed(recipe.arms)
    logged = bool(recipe.config.train.loggers)
    return len(recipe.phases) + len(recipe.arms) + scores + logged + 1


def where_to_look(recipe: Recipe) -> list[str]:
    """Return a line for each result of a finished run, with its path."""
    folder, loggers = recipe.folder, recipe.config.train.loggers
    lines = {
        "Page": f"{folder.report}",
        "Models": f"{folder.model('')}/ ({', '.join(recipe.arms)})",
        "Numbers": f"{folder.report_files}/numbers.json",
    }
    if "tensorboard" in loggers:
        logs = (loggers["tensorboard"] or {}).get("log_dir") or folder.tensorboard
        lines["Curves"] = f"tensorboard --logdir {logs}"
    return [f"  {name:<8} {text}" for name, text in lines.items()]


def show_plan(plan: RecipePlan, warnings: list[str], path: Path) -> None:
    """Print the plan of a recipe with its warnings, and write the operations of each phase to `path`."""
    print_plan(plan)
    for warning in warnings:
        warn(warning)
    totals = {
        phase.run.id: None if phase.operations is None else phase.operations.total for phase in plan.phases
    }
    write(PlanRecord({id: PlannedPhase(total) for id, total in totals.items()}), path)


def prepare_data(recipe: Recipe | Config, engine: Engine = LOCAL) -> int:
    """Run the steps before training only, and return how many had something to do.

    Args:
        recipe: Recipe, or its config.
        engine: Where the sources are tokenized and packed: on this machine, or on a cluster.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe(recipe)
    config, folder = recipe.config, recipe.folder
    with exclusive(folder.root, "Another run works"), serving_data(engine, recipe):
        runner = StepRunner(folder.steps, steps_before_training(recipe))
        prepare_tokenizer(runner, config.data, config.tokenizer.train, folder)
        add_tokens(runner, recipe)
        prepare_sources(runner, recipe.prepared, recipe.tokenizer, recipe.longest_document)
    return runner.ran

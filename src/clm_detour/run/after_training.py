"""The steps after training: exported models, scores, the analysis and the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from clm_detour.analyze.run import analysis_inputs, analyze_run
from clm_detour.config.schema import FineTuning
from clm_detour.data.tokenizer import copy_tokenizer
from clm_detour.evaluate import fill_mask
from clm_detour.evaluate.command import evaluate_models
from clm_detour.evaluate.tables import score_table
from clm_detour.figures.renderers import print_table
from clm_detour.model import hf
from clm_detour.recipe.export import ABOUT
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.start import is_decoder
from clm_detour.records.evaluation import Summary
from clm_detour.records.run import FilledMask, HeldOutRecord
from clm_detour.records.run_folder import RunFolder
from clm_detour.records.store import read, write
from clm_detour.run.check.model import has_tokenizer
from clm_detour.run.engine import Step
from clm_detour.run.held_out import masked_base
from clm_detour.utils.files import atomic_folder
from clm_detour.utils.parallel import LOCAL, Engine
from clm_detour.utils.progress import console, progress


def export_step(arm: str, last_phase: str, folder: RunFolder, export: Callable[[], None]) -> Step:
    """Return the step that writes the Hugging Face folder of an arm by calling `export`."""
    about = folder.model(arm) / ABOUT
    return Step(
        f"export {arm}",
        f"Export {arm}",
        export,
        outputs=[about],
        inputs=[folder.phase(last_phase).record],
        settings={"phase": last_phase},
        settings_file=about,
    )


def external_base(base: str | None) -> dict[str, str]:
    """Return `{"base": base}` for an external base that is an encoder. A decoder is not."""
    return {} if base is None or is_decoder(base) else {"base": base}


def model_paths(base: str | None, folder: RunFolder, arms: Iterable[str]) -> dict[str, str]:
    """Return the paths of the models to compare, in the order of display: an external base, then the arms."""
    return {**external_base(base), **{arm: str(folder.model(arm)) for arm in arms}}


def with_tokenizers(models: Mapping[str, str], recipe: Recipe) -> dict[str, str]:
    """Return the models, with a folder of the run in place of an external base that has no tokenizer.

    That folder has links to the files of the base, and the tokenizer of the run.
    """
    base = models.get("base")
    if base is None or base != recipe.config.model.base or has_tokenizer(base):
        return dict(models)
    place = recipe.folder.root / "base"
    with atomic_folder(place) as temporary:
        for file in Path(hf.as_folder(base)).resolve().iterdir():
            (temporary / file.name).symlink_to(file)
        copy_tokenizer(recipe.original_tokenizer_path, temporary)
    return {**models, "base": str(place)}


def fill_masks_step(recipe: Recipe) -> Step:
    """Return the step that masks words in a few held-out sentences and lets every model fill them in."""
    config, folder = recipe.config, recipe.folder
    arms = {arm: str(folder.model(arm)) for arm in recipe.arms}
    names = list(model_paths(config.model.base, folder, recipe.arms))
    count, seed = config.evaluate.fill_masks, config.seed

    def work() -> None:
        sentences = [
            FilledMask(name, sentence["text"], sentence["answer"])
            for name, source in recipe.open_sources(recipe.domain_sources, "held_out").items()
            for sentence in fill_mask.masked_sentences(source, recipe.tokenizer, count, seed)
        ]
        paths = {**masked_base(config.model.base), **arms}
        tokenizer = str(folder.model(next(iter(recipe.arms))))
        with progress("Masks", len(sentences) * len(paths), "masks") as advance:
            own = masked_base(config.model.base) if recipe.adds_tokens else {}
            own = dict.fromkeys(own, recipe.original_tokenizer_path)
            filled = fill_mask.fill(sentences, paths, tokenizer, advance, own)
        write(filled, folder.fill_masks, list[FilledMask])

    settings = {"sentences": count, "seed": seed, "sources": recipe.domain_sources, "models": names}
    inputs = [folder.model(arm) / "config.json" for arm in recipe.arms]
    return Step("fill masks", "Fill masks", work, [folder.fill_masks], inputs, settings)


def tasks_step(
    settings: FineTuning, models: Mapping[str, str], folder: RunFolder, engine: Engine = LOCAL
) -> Step:
    """Return the step that fine-tunes the models on tasks. Each fine-tuning run has its own record."""

    def work() -> bool:
        summary, runs = evaluate_models(settings, models, folder.tasks, folder.root.name, engine)
        if runs:
            where = f"Differences, costs and what is left out: {folder.tasks / 'table.md'}"
            print_table(dataclasses.replace(score_table(summary, corner=""), notes=[where]), console)
        return runs > 0

    return Step("tasks", "Fine-tune on tasks", work)


def scores_step(recipe: Recipe) -> Step:
    """Return the step that hands the final scores to the loggers of the recipe."""
    folder = recipe.folder
    records = [path for path in (folder.held_out, folder.tasks / "summary.json") if path.exists()]

    def work() -> None:
        from clm_detour.train.loggers import log_scores  # Composer takes seconds to import

        log_scores(recipe, final_scores(recipe.arms, folder))

    loggers = {"loggers": sorted(recipe.config.train.loggers)}
    return Step("log scores", "Log the scores", work, [folder.logged_scores], records, loggers)


def final_scores(arms: Mapping[str, Sequence[PhaseRun]], folder: RunFolder) -> dict[str, dict[str, float]]:
    """Return the scores that exist now, by phase and name; only last phases of arms have some on tasks."""
    scores: dict[str, dict[str, float]] = {}
    if folder.held_out.exists():
        held_out = read(HeldOutRecord, folder.held_out)
        for phase, found in held_out.phases.items():
            scores[phase] = found.values("final/held_out")
        for phase, found in (held_out.general.phases if held_out.general else {}).items():
            scores[phase] |= found.values("final/general_text")
    if (path := folder.tasks / "summary.json").exists():
        summary = read(Summary, path)
        for arm, runs in arms.items():
            tasks = {task: score.mean for task, score in summary.scores.get(arm, {}).items()}
            tasks |= {
                f"mean of {group.name}": group.averages[arm].mean
                for group in summary.averaged
                if arm in group.averages
            }
            named = {f"final/tasks/{task}": mean for task, mean in tasks.items()}
            scores[runs[-1].id] = {**scores.get(runs[-1].id, {}), **named}
    return scores


def analysis_step(recipe: Recipe) -> Step:
    """Return the step that compares the networks of detour and twin."""
    config, folder = recipe.config, recipe.folder

    inputs, settings = (
        [*analysis_inputs(recipe.arms, folder), folder.held_out],
        dataclasses.asdict(config.analysis),
    )
    work = partial(analyze_run, recipe)
    return Step("analysis", "Compare detour and twin", work, [folder.comparison], inputs, settings)


def report_step(folder: RunFolder) -> Step:
    """Return the step that writes the page and the model cards from the records that exist now."""

    def work() -> None:
        from clm_detour.report.card import write_cards  # charts take long to import
        from clm_detour.report.page import write_page

        write_cards(folder.root)
        write_page(folder.root)

    records = [folder.held_out, folder.fill_masks, folder.tasks / "summary.json", folder.comparison]
    inputs = [folder.environment, *(path for path in records if path.exists())]
    return Step("report", "Write the page", work, outputs=[folder.report], inputs=inputs)

"""The step that scores models on held-out text of the domain, and on general text if a recipe names some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from clm_detour.data.token_characters import count_characters
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.measure.before_addition import before_addition
from clm_detour.measure.held_out import HeldOut
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.base import fills_masks
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.run import HeldOutRecord, Scores
from clm_detour.records.store import write
from clm_detour.run.engine import Step
from clm_detour.utils.allocator import keep_freed_memory
from clm_detour.utils.progress import progress


def masked_base(base: str | None) -> dict[str, str]:
    """Return `{"base": base}` for an external base that can fill masks."""
    return {"base": base} if base is not None and fills_masks(base) else {}


def held_out_step(recipe: Recipe) -> Step:
    """Return the step that scores an external base and the end of each phase on held-out rows.

    Rows of `evaluate.general` are scored apart from those of the domain.
    """
    config, folder, general = recipe.config, recipe.folder, recipe.config.evaluate.general
    settings = {
        "mask_rate": config.evaluate.mask_rate,
        "rows": config.evaluate.rows,
        "seed": config.seed,
        "sources": recipe.domain_sources,
        "arms": last_phases(recipe),
        **({} if general is None else {"general": general}),
    }

    def work() -> None:
        keep_freed_memory()
        found = score_models(recipe, recipe.domain_sources, "Held-out rows")
        if general is not None:
            found = replace(found, general=score_models(recipe, [general], "General text"))
        write(found, folder.held_out)

    inputs = [folder.phase(id).record for id in recipe.phases]
    return Step("held-out", "Score on held-out text", work, [folder.held_out], inputs, settings)


def last_phases(recipe: Recipe) -> dict[str, str]:
    """Return the id of the last phase of each arm."""
    return {arm: phases[-1].id for arm, phases in recipe.arms.items()}


def score_models(recipe: Recipe, sources: Iterable[str], description: str) -> HeldOutRecord:
    """Score an external base and the end of each phase on the held-out rows of sources."""
    rows, ends = held_out_rows(recipe, sources), last_phases(recipe)
    external = masked_base(recipe.config.model.base)
    phases = {id: str(recipe.folder.phase(id).model) for id in recipe.phases}
    rows_of_base, characters = rows, None
    if external and recipe.adds_tokens:
        original = load_tokenizer(recipe.original_tokenizer_path)
        rows_of_base = before_addition(rows, recipe.tokenizer.added, original.vocabulary)
        counts = rows.count_characters(count_characters(recipe.tokenizer))
        characters = dict.fromkeys([*ends, *phases], counts)
        characters |= dict.fromkeys(external, rows_of_base.count_characters(count_characters(original)))
    with progress(description, rows.total_rows * (len(external) + len(phases)), "rows") as advance:

        def score(paths: Mapping[str, str], rows: HeldOut) -> dict[str, Scores]:
            return {
                name: rows.score(ModernBertForPretraining.from_pretrained(path, causal=False), advance)
                for name, path in paths.items()
            }

        models, scores = score(external, rows_of_base), score(phases, rows)
    models |= {arm: scores[end] for arm, end in ends.items()}
    return HeldOutRecord(rows.mask_rate, models, scores, characters=characters)


def held_out_rows(recipe: Recipe, sources: Iterable[str]) -> HeldOut:
    """Return the held-out rows of sources under the masks of the recipe."""
    config = recipe.config
    return HeldOut(
        sources=recipe.open_sources(sources, "held_out"),
        vocabulary=recipe.tokenizer.vocabulary,
        sequence_length=config.data.sequence_length,
        mask_rate=config.evaluate.mask_rate,
        rows=config.evaluate.rows,
        seed=config.seed,
    )

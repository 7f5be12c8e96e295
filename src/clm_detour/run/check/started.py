"""Check that a recipe still fits the phases that its run folder has started.

A phase is never continued, or compared with others, under other settings or on other documents. Nothing is
prepared for the check: if the files of a source have changed, it compares what its shards were made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from clm_detour.data.cache import is_remote
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.settings import (
    DOCUMENTS,
    changed_settings_error,
    check_unchanged,
    describe_source_change,
    recipe_settings,
)
from clm_detour.records.run_folder import PhaseFolder, RunFolder
from clm_detour.run.add_tokens import addition_step
from clm_detour.run.before_training import sample_step, tokenizer_step
from clm_detour.run.check.sources import Origin, RecipeSource
from clm_detour.utils.files import read_json
from clm_detour.utils.progress import human_bytes
from clm_detour.utils.started_with import changes

NOT_SETTINGS = (
    "files",
    "tokenizer",
    "on_error",
)  # parts of an origin that are compared elsewhere or not at all


def check_started(recipe: Recipe, sources: Mapping[str, RecipeSource]) -> list[str]:
    """Raise UserError if sample, tokenizer or a phase was started with other settings or documents.

    Returns:
        Warnings that name the sources for which only preparing can tell.
    """
    config, folder = recipe.config, recipe.folder
    if config.data.sample is not None:
        sample_step(config.data.sample, folder.sample).check_fixed_settings()
    if config.tokenizer.train is not None:
        tokenizer_step(config.tokenizer.train, config.data, folder.tokenizer).check_fixed_settings()
    if config.tokenizer.add is not None and recipe.has_original_tokenizer:
        addition_step(config.tokenizer.add, recipe).check_fixed_settings()
    started = [run for id, run in recipe.phases.items() if folder.phase(id).settings.exists()]
    known = {"tokenizer": recipe.tokenizer.fingerprint} if recipe.has_tokenizer else {}
    for run in started:
        now = {**recipe_settings(config, run), **known}
        check_unchanged(folder.phase(run.id), config.data.dir, now)
    return check_documents(sources, started, folder, recipe) if known else []


def check_documents(
    sources: Mapping[str, RecipeSource], started: Iterable[PhaseRun], folder: RunFolder, recipe: Recipe
) -> list[str]:
    """Raise UserError if a source no longer holds the documents on which a phase was started.

    Returns:
        Warnings that name the sources whose files changed, but perhaps not their documents.
    """
    warnings: dict[str, None] = {}
    for name, source in sources.items():
        mixtures = source.prepared.settings.mixtures
        phases = [folder.phase(run.id) for run in started if name in mixtures[run.phase.mixture]]
        if not phases or is_remote(source.folder):
            continue
        origins = (
            None
            if source.prepared_elsewhere
            else source.changed_origin(recipe.tokenizer, recipe.longest_document)
        )
        for phase in phases:
            if origins is None:
                check_rows(source, phase)
            elif warning := check_origins(source, phase, *origins):
                warnings[warning] = None
    return list(warnings)


def check_rows(source: RecipeSource, phase: PhaseFolder) -> None:
    """Raise UserError if the rows of a prepared source are not those on which a phase was started."""
    if rows := source.training_rows():
        documents = source.prepared.count_documents(source.name)
        now = {"data": {source.name: rows.fingerprint}, DOCUMENTS: {source.name: documents}}
        check_unchanged(phase, source.prepared.settings.dir, now)


def check_origins(source: RecipeSource, phase: PhaseFolder, before: Origin, now: Origin) -> str | None:
    """Raise UserError if a source that will be prepared again holds other documents than those of a phase.

    Args:
        before: What the existing shards were made from, perhaps by another run.
        now: What they would be made from now.

    Returns:
        A warning if only preparing can tell.
    """
    settings, name, rows = read_json(phase.settings), source.name, source.training_rows()
    changed = problem = None
    if rows is not None and rows.fingerprint == (settings.get("data") or {}).get(name):
        documents = source.prepared.count_documents(name)
        changed = changed_setting(name, before, now)
        if files := changed_files(before, now):
            problem = f"its files changed ({files}); preparing will show whether its documents did"
        elif before.get("across") != now.get("across"):
            problem = "a source before it changed; preparing will show whether its own documents did"
    else:
        documents = (settings.get(DOCUMENTS) or {}).get(name)
        problem = (
            f"{source.folder} was prepared for another run since {phase.root.name} was started; preparing it "
            "again will show whether its documents are the same"
        )
    if problem and not changed:
        changed = changed_count(source, documents)
    if changed:
        raise changed_settings_error(phase, source.prepared.settings.dir, [changed], other_rows=True)
    return problem and f"source {name}: {problem}."


def changed_setting(name: str, before: Origin, now: Origin) -> str | None:
    """Return a description of the first setting of a source that changed, if one did."""
    settings = [
        {key: value for key, value in made.items() if key not in NOT_SETTINGS} for made in (before, now)
    ]
    for change in changes(*settings):
        key = {"text_field": f"data.sources.{name}.text", "held_out": "data.held_out"}.get(change.key)
        if change.key.startswith("across.deduplicate"):
            key = change.key.replace("across", "data", 1)
        if change.key != "across.earlier":
            return str(change._replace(key=key or f"data.sources.{name}.{change.key}"))
    return None


def changed_files(before: Origin, now: Origin) -> str | None:
    """Return a description of how the files of a source changed; None if at most their times did."""
    files = [[(Path(file["path"]).name, file["size"]) for file in made["files"]] for made in (before, now)]
    if files[0] == files[1]:
        return None
    old, new = (
        f"{human_bytes(sum(size for _, size in each))} in {len(each)} file{'' if len(each) == 1 else 's'}"
        for each in files
    )
    return f"{old}, now {new}"


def changed_count(source: RecipeSource, before: int | None) -> str | None:
    """Return a description of a changed number of documents, if the source is small enough to count them."""
    if before is None or source.settings.repeat or not source.is_small():
        return None
    now = sum(1 for _ in source.documents())
    return None if before == now else describe_source_change(source.name, before, now)

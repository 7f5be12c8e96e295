"""Analyze a run with the arms `detour` and `twin`, and write the results to `RUN/analysis/`.

compare.json, layers.csv, matrices.csv, figures
    See `compare`: detour and twin at their ends; before the decay, for the retention; and the arm
    `control`, a second twin, for the ratio, if the recipe has one.
trajectory.json, trajectory.png, .svg
    See `trajectory`.
weights.json
    See `weights`: of each arm from the start to its end, and of each of its phases.
gradients.json
    See `gradients`: of the model from which both arms start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clm_detour.analyze.compare import KnownStates, Settings, compare, write_comparison
from clm_detour.analyze.gradients import gradients
from clm_detour.analyze.texts import FEWEST, held_out_texts
from clm_detour.analyze.trajectory import Point, exported_points, trajectory
from clm_detour.analyze.weights import weight_change
from clm_detour.recipe.base import fills_masks
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.analysis import GradientsRecord, TrajectoryRecord, WeightsRecord
from clm_detour.records.run_folder import RunFolder
from clm_detour.records.store import parse, write

DETOUR, TWIN, CONTROL = "detour", "twin", "control"
GRADIENT_TEXTS = 60
Arms = Mapping[str, Sequence[PhaseRun]]


def can_be_analyzed(arms: Arms) -> bool:
    """Return whether there are a detour and a twin, each with a phase that the other does not have."""
    return {DETOUR, TWIN} <= set(arms) and bool(own_phases(arms, DETOUR) and own_phases(arms, TWIN))


def own_phases(arms: Arms, arm: str) -> list[PhaseRun]:
    """Return the phases of an arm after those that detour and twin share."""
    shared = {run.id for run in arms[DETOUR]} & {run.id for run in arms[TWIN]}
    return [run for run in arms[arm] if run.id not in shared]


def analysis_inputs(arms: Arms, folder: RunFolder) -> list[Path]:
    """Return the records of the phases that the analysis depends on."""
    return [folder.phase(run.id).record for arm in (DETOUR, TWIN, CONTROL) for run in arms.get(arm, ())]


def common_start(arms: Arms, base: str | None, folder: RunFolder) -> str | None:
    """Return the model from which detour and twin start.

    Args:
        arms: Phases of each arm.
        base: Setting `model.base`.
        folder: Folder of the run.

    Returns None if each of them initializes its own, or if that model cannot fill masks, such as a decoder.
    """
    parent = own_phases(arms, DETOUR)[0].parent
    if parent is not None:
        return str(folder.phase(parent.id).model)
    return base if base is not None and fills_masks(base) else None


def analyze_run(recipe: Recipe) -> str | None:
    """Analyze a finished run on its held-out texts and write all results.

    Returns:
        None, or a sentence that says why nothing was written: there are too few held-out texts.
    """
    wanted, seed, folder = recipe.config.analysis, recipe.config.seed, recipe.folder.analysis
    texts = held_out_texts(recipe, wanted.samples * wanted.texts)
    if len(texts) < FEWEST:
        return (
            f"There are {len(texts)} distinct held-out texts, and a comparison of networks takes {FEWEST}; "
            "give more documents, or raise data.held_out."
        )
    settings = Settings(
        samples=wanted.samples,
        per_sample=min(wanted.texts, len(texts)),
        max_tokens=wanted.max_tokens,
        seed=seed,
    )
    arms = recipe.arms
    start = common_start(arms, recipe.config.model.base, recipe.folder)
    if start == recipe.config.model.base:
        start = recipe.start  # with embeddings for added tokens, so that all models read the same tokens
    tokenizer = recipe.tokenizer_path  # a base may have no tokenizer
    known: KnownStates = {}
    models = compared_models(arms, recipe.folder)
    comparison = compare(models, texts, settings, "held-out texts of the run", known=known)
    points = trajectory_points(arms, recipe.folder, start)
    references = trajectory_references(arms, recipe.folder, start)
    found = trajectory(points, references, texts, settings, tokenizer, known)
    from clm_detour.analyze.figures import save_trajectory  # altair takes long to import

    save_trajectory(found, folder)
    write(parse(TrajectoryRecord, found), folder / "trajectory.json")
    changes = weight_changes(arms, recipe.folder, start)
    write(parse(WeightsRecord, {"changes": changes}), folder / "weights.json")
    if start is not None:
        found = gradients(start, texts[:GRADIENT_TEXTS], wanted.max_tokens, seed, tokenizer)
        write(parse(GradientsRecord, found), folder / "gradients.json")
    write_comparison(comparison, folder)
    return None


def compared_models(arms: Arms, folder: RunFolder) -> dict[str, str]:
    """Return the folder of the model in each role of the comparison."""

    def model(run: PhaseRun) -> str:
        return str(folder.phase(run.id).model)

    detour, twin = own_phases(arms, DETOUR), own_phases(arms, TWIN)
    roles = {"a": model(detour[-1]), "b": model(twin[-1])}
    if CONTROL in arms:
        roles["control"] = model(arms[CONTROL][-1])
    if len(detour) > 1 and len(twin) > 1:
        roles |= {"before_a": model(detour[-2]), "before_b": model(twin[-2])}
    return roles


def trajectory_points(arms: Arms, folder: RunFolder, start: str | None) -> list[Point]:
    """Return the checkpoints of the detour, in order."""
    total = 0
    points = [] if start is None else [Point("start", 0, 0, start)]
    for run in own_phases(arms, DETOUR):
        phase = folder.phase(run.id)
        exported = exported_points(run.id, phase.exports, total)
        last_step = run.tokens - run.batch_tokens  # what is exported after it is the end of the phase
        points += [point for point in exported if point.tokens <= last_step]
        total += run.tokens
        points.append(Point(run.id, run.tokens, total, str(phase.model)))
    return points


def trajectory_references(arms: Arms, folder: RunFolder, start: str | None) -> dict[str, str]:
    """Return the models from which the trajectory is measured: the twin before its decay, and the start."""
    twin = own_phases(arms, TWIN)
    undecayed = str(folder.phase(twin[max(len(twin) - 2, 0)].id).model)
    return {"undecayed_twin": undecayed} | ({} if start is None else {"start": start})


def weight_changes(arms: Arms, folder: RunFolder, start: str | None) -> list[dict[str, Any]]:
    """Return the weight change of each arm over all its own phases, and over each of them."""
    changes = []
    for arm in (DETOUR, TWIN):
        runs = own_phases(arms, arm)
        ends: list[str | None] = [start, *(str(folder.phase(run.id).model) for run in runs)]
        spans = [(0, len(runs)), *((i, i + 1) for i in range(len(runs)) if len(runs) > 1)]
        for first, last in spans:
            before, after = ends[first], ends[last]
            if before is not None and after is not None:
                names = [runs[first].name, runs[last - 1].name]
                changes.append({"arm": arm, "phases": names, **weight_change(before, after)})
    return changes

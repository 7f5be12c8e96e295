"""The analysis of a run with the arms `detour` and `twin`, into `RUN/analysis/`.

compare.json, layers.csv, matrices.csv, figures   see `compare`: detour and twin at their ends; before the decay, for the retention; and
                                                  the arm `control`, a second twin, for the ratio, if the recipe has one
trajectory.json, trajectory.png, .svg             see `trajectory`
weights.json       {"changes": [{arm, phases ([first, last]), ...}...]}, each as in `weights`: of each arm from the start to its end, and of
                   each phase of it
gradients.json     see `gradients`: of the model that both arms start from
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clm_detour.analyze.compare import Settings, compare, write_comparison
from clm_detour.analyze.figures import save_trajectory
from clm_detour.analyze.gradients import gradients
from clm_detour.analyze.texts import FEWEST, held_out_texts
from clm_detour.analyze.trajectory import Point, exported_points, trajectory
from clm_detour.analyze.weights import weight_change
from clm_detour.config.schema import Config
from clm_detour.recipe.export import tokenizer_path
from clm_detour.recipe.phases import PhaseRun, plan_arm
from clm_detour.recipe.start import is_decoder
from clm_detour.records.analysis import GradientsRecord, TrajectoryRecord, WeightsRecord
from clm_detour.records.run_folder import RunFolder
from clm_detour.records.store import parse, write

DETOUR, TWIN, CONTROL = "detour", "twin", "control"
GRADIENT_TEXTS = 60


def can_be_analyzed(config: Config) -> bool:
    """Whether there is a detour and a twin, each with a phase that the other has not."""
    return {DETOUR, TWIN} <= set(config.arms) and bool(
        own_phases(config, DETOUR) and own_phases(config, TWIN)
    )


def own_phases(config: Config, arm: str) -> list[PhaseRun]:
    """The phases of an arm after those that detour and twin share."""
    shared = {run.id for run in plan_arm(config, DETOUR)} & {run.id for run in plan_arm(config, TWIN)}
    return [run for run in plan_arm(config, arm) if run.id not in shared]


def texts_of(config: Config, sources: Sequence[str]) -> list[str]:
    """The texts on which the networks are compared: held-out ones of these sources, as many as there are up to what is asked for."""
    wanted = config.analysis
    return held_out_texts(config, sources, wanted.samples * wanted.texts)


def too_few(texts: Sequence[str]) -> str | None:
    """Why these texts do not allow a comparison, if so."""
    if len(texts) >= FEWEST:
        return None
    return f"There are {len(texts)} distinct held-out texts, and a comparison of networks takes {FEWEST}; give more documents, or raise data.held_out."


def analyze_run(config: Config, texts: Sequence[str]) -> None:
    """Write everything."""
    wanted = config.analysis
    settings = Settings(
        samples=wanted.samples,
        per_sample=min(wanted.texts, len(texts)),
        max_tokens=wanted.max_tokens,
        seed=config.seed,
    )
    folder = RunFolder.of(config).analysis
    start = start_of(config)
    tokenizer = tokenizer_path(config)  # a base may have none of its own
    found = trajectory(points_of(config, start), references_of(config, start), texts, settings, tokenizer)
    save_trajectory(found, folder)
    write(parse(TrajectoryRecord, found), folder / "trajectory.json")
    write(parse(WeightsRecord, {"changes": weight_changes(config, start)}), folder / "weights.json")
    if start is not None:
        found = gradients(start, texts[:GRADIENT_TEXTS], wanted.max_tokens, config.seed, tokenizer)
        write(parse(GradientsRecord, found), folder / "gradients.json")
    write_comparison(compare(roles_of(config), texts, settings, "held-out texts of the run"), folder)


def start_of(config: Config) -> str | None:
    """The model from which detour and twin set out; None if each made its own, or it is a decoder, which knows no mask."""
    parent, base = own_phases(config, DETOUR)[0].parent, config.model.base
    if parent is not None:
        return str(RunFolder.of(config).phase(parent.id).model)
    return None if base is None or is_decoder(base) else base


def roles_of(config: Config) -> dict[str, str]:
    """Models in the roles of a comparison."""
    folder = RunFolder.of(config)

    def model(run: PhaseRun) -> str:
        return str(folder.phase(run.id).model)

    detour, twin = own_phases(config, DETOUR), own_phases(config, TWIN)
    roles = {"a": model(detour[-1]), "b": model(twin[-1])}
    if CONTROL in config.arms:
        roles["control"] = model(plan_arm(config, CONTROL)[-1])
    if len(detour) > 1 and len(twin) > 1:
        roles |= {"before_a": model(detour[-2]), "before_b": model(twin[-2])}
    return roles


def points_of(config: Config, start: str | None) -> list[Point]:
    """The detour's checkpoints in order."""
    folder, total = RunFolder.of(config), 0
    points = [] if start is None else [Point("start", 0, 0, start)]
    for run in own_phases(config, DETOUR):
        phase = folder.phase(run.id)
        on_the_way = exported_points(run.id, phase.exports, total)
        last_step = run.tokens - run.batch_tokens  # what is exported after it is the phase's end
        points += [point for point in on_the_way if point.tokens <= last_step]
        total += run.tokens
        points.append(Point(run.id, run.tokens, total, str(phase.model)))
    return points


def references_of(config: Config, start: str | None) -> dict[str, str]:
    """What the trajectory is measured against."""
    twin = own_phases(config, TWIN)
    undecayed = str(RunFolder.of(config).phase(twin[max(len(twin) - 2, 0)].id).model)
    return {"undecayed_twin": undecayed} | ({} if start is None else {"start": start})


def weight_changes(config: Config, start: str | None) -> list[dict[str, Any]]:
    """Of each arm: over all its own phases, and over each of them."""
    folder, changes = RunFolder.of(config), []
    for arm in (DETOUR, TWIN):
        runs = own_phases(config, arm)
        ends: list[str | None] = [start, *(str(folder.phase(run.id).model) for run in runs)]
        spans = [(0, len(runs)), *((i, i + 1) for i in range(len(runs)) if len(runs) > 1)]
        for first, last in spans:
            before, after = ends[first], ends[last]
            if before is not None and after is not None:
                names = [runs[first].name, runs[last - 1].name]
                changes.append({"arm": arm, "phases": names, **weight_change(before, after)})
    return changes


def analysis_inputs(config: Config) -> list[Path]:
    """What must be older than the analysis."""
    folder = RunFolder.of(config)
    arms = [arm for arm in (DETOUR, TWIN, CONTROL) if arm in config.arms]
    return [folder.phase(run.id).record for arm in arms for run in plan_arm(config, arm)]

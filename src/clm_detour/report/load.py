"""Read a run's folder for the report.

What is absent, damaged or in another form is left out and named in `Run.missing`. Only a folder that holds
none of a run's records is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from clm_detour.config.loading import load_config
from clm_detour.config.schema import Config
from clm_detour.data.cache import is_remote
from clm_detour.recipe.prepared import PreparedData
from clm_detour.records.analysis import GradientsRecord, NetworkComparison, TrajectoryRecord, WeightsRecord
from clm_detour.records.audit import AuditRecord
from clm_detour.records.data import CARD, DataCard
from clm_detour.records.evaluation import Summary
from clm_detour.records.needles import NeedleProbeRecord, NeedlesRecord
from clm_detour.records.phase import HeldOutStep, LoggedStep, PhaseRecord
from clm_detour.records.run import Arms, FilledMask, HeldOutRecord, PlanRecord, Scores, StepRecord
from clm_detour.records.run_folder import PhaseFolder, RunFolder
from clm_detour.records.store import parse, read_lines
from clm_detour.report.run import Curve, Phase, Run, Watched
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json

T = TypeVar("T")

TRACES = ("config.yaml", "environment.json", "steps.json", "arms.json", "phases", "evaluation")


def load_run(run_dir: Path) -> Run:
    """Read the records of a run, finished or not.

    Raises:
        UserError: If `run_dir` is not a folder, or holds none of a run's records.
    """
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} is not a folder; give the run_dir of a recipe.")
    if not any((run_dir / trace).exists() for trace in TRACES):
        traces = ", ".join(TRACES)
        raise UserError(f"{run_dir} holds none of a run's records ({traces}); give the run_dir of a recipe.")
    folder, run = RunFolder(run_dir), Run(name=run_dir.resolve().name, folder=run_dir.resolve())
    files = Reader(run_dir, run.missing)
    run.config, run.config_text = read_config(files, folder.config)
    run.environment = files.read(folder.environment, "Versions and hardware", dict[str, Any])
    steps = files.read(folder.steps, "The steps and their times", list[StepRecord]) or []
    run.steps = [step for step in steps if step.left_out is None]
    phases = run.config.phases if run.config else {}
    run.arms = read_arms(files, folder.arms, run.config.arms if run.config else {})
    for id in phase_ids(run_dir, run.arms):
        settings = phases.get(id.rsplit(".", 1)[-1])
        objective = settings.objective if settings else None
        run.phases[id] = read_phase(files, folder.phase(id), id, objective)
    run.sources = read_sources(files, PreparedData(run.config.data) if run.config else None)
    held_out = files.read(folder.held_out, "Held-out scores", HeldOutRecord)
    run.held_out = held_out and held_out.in_characters()
    run.filled_masks = files.read(folder.fill_masks, "Filled masks", list[FilledMask]) or []
    read_tasks_and_analysis(files, folder, run, {step.step: step.left_out for step in steps if step.left_out})
    plan = files.read(folder.plan, "Operations", PlanRecord, expected=False)
    planned = plan.phases if plan else {}
    run.operations = {id: phase.operations for id, phase in planned.items() if phase.operations is not None}
    run.exported = [arm for arm in run.arms if is_model(folder.model(arm))]
    run.parameters = next(filter(None, (parameters_of(folder.model(arm)) for arm in run.exported)), None)
    run.missing += absent_models(run)
    return run


def read_tasks_and_analysis(files: Reader, folder: RunFolder, run: Run, left_out: dict[str, str]) -> None:
    """Read the records that are expected only where the recipe asks for them.

    Args:
        left_out: Step -> why this recipe cannot do it.
    """
    asks_tasks = run.config is not None and run.config.evaluate.tasks is not None
    both = {"detour", "twin"} <= run.arms.keys()
    run.evaluation = files.read(folder.tasks / "summary.json", "Scores on tasks", Summary, asks_tasks)
    analysis, title, reason = folder.analysis, "Comparison of the networks", left_out.get("analysis")
    run.comparison = files.read(folder.comparison, title, NetworkComparison, both and not reason)
    if reason and both and run.comparison is None:
        run.left_out.append(f"{title}: left out. {reason}")
    run.trajectory = files.read(
        analysis / "trajectory.json", "Divergence during training", TrajectoryRecord, expected=False
    )
    weights = files.read(analysis / "weights.json", "Weight change", WeightsRecord, expected=False)
    run.weights = weights.changes if weights else []
    gradients = files.read(analysis / "gradients.json", "Gradients", GradientsRecord, expected=False)
    run.gradients = gradients.objectives if gradients else {}
    run.needles = files.read(analysis / "needles.json", "Needles", NeedlesRecord, expected=False)
    run.needle_probe = files.read(
        analysis / "needle_probe.json", "Needle probe", NeedleProbeRecord, expected=False
    )
    run.audit = files.read(folder.audit, "What the models remember", AuditRecord, expected=False)


@dataclass
class Reader:
    """Reads the JSON files of a run, and notes those that it cannot read."""

    root: Path
    missing: list[str]

    def read(self, path: Path, title: str, kind: type[T], expected: bool = True) -> T | None:
        """Return the record in a file, or None with a sentence in `missing`.

        Args:
            title: What the record holds, for the sentence.
            expected: Whether there is a sentence where the file is absent.
        """
        if not path.is_file():
            if expected:
                self.missing.append(f"{title}: {self.name(path)} has not been written.")
            return None
        try:
            return parse(kind, read_json(path))
        except UserError:
            self.missing.append(f"{title}: {self.name(path)} is not valid JSON.")
        except ValueError:
            self.missing.append(f"{title}: {self.name(path)} does not have the form that this version reads.")
        return None

    def name(self, path: Path) -> str:
        """Return the path below the run or, of data that runs share, its end.

        The page names no folder of the machine, since it may be read elsewhere.
        """
        inside = path.is_relative_to(self.root)
        return (path.relative_to(self.root) if inside else Path(path.parent.name, path.name)).as_posix()


def read_config(files: Reader, path: Path) -> tuple[Config | None, str | None]:
    """Return the recipe, checked and as text."""
    if not path.is_file():
        files.missing.append(f"The recipe: {files.name(path)} has not been written.")
        return None, None
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return load_config(path), text
    except UserError:
        files.missing.append(f"The recipe: {files.name(path)} is not one that this version reads.")
        return None, text


def read_arms(files: Reader, path: Path, planned: Mapping[str, Sequence[str]]) -> Arms:
    """Return the arms of the run or, before its first phase, those of the recipe.

    Args:
        planned: Names of the phases of each arm of the recipe.
    """
    found = files.read(path, "The arms", Arms) or {}
    arms = {arm: ids for arm, ids in found.items() if ids}
    return arms or {
        arm: [".".join(names[: i + 1]) for i in range(len(names))] for arm, names in planned.items()
    }


def phase_ids(run_dir: Path, arms: Arms) -> Iterable[str]:
    """Return each phase once, in the order of the arms; without arms, the folders that are there."""
    if arms:
        return dict.fromkeys(id for ids in arms.values() for id in ids)
    folder = run_dir / "phases"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()


def read_phase(files: Reader, folder: PhaseFolder, id: str, objective: str | None) -> Phase:
    """Return a phase, as far as it has come.

    Args:
        objective: Objective of the phase in the recipe, if there is a recipe.
    """
    if not folder.root.is_dir():
        files.missing.append(f"Phase {id}: it has not begun.")
        return Phase(id, objective, None, None)
    curve = read_curve(folder.metrics)
    if curve is None:
        files.missing.append(f"Phase {id}: {files.name(folder.metrics)} holds no logged step.")
    end = files.read(folder.record, f"The end of phase {id}", PhaseRecord)
    return Phase(id, end.objective if end else objective, curve, end, read_watched(folder.held_out))


def read_curve(path: Path) -> Curve | None:
    """Return the logged steps in order; if a step was logged again after a resume, the later line counts."""
    steps = {step.step: step for step in read_lines(LoggedStep, path)}
    if not steps:
        return None
    names = Curve.__dataclass_fields__
    ordered = [steps[number] for number in sorted(steps)]
    return Curve(**{name: np.array([getattr(step, name) for step in ordered], float) for name in names})


def read_watched(path: Path) -> Watched | None:
    """Return the held-out losses while the phase trained; None if they were not measured."""
    lines = [line for line in read_lines(HeldOutStep, path) if line.mlm.predicted or line.clm.predicted]
    steps = {line.tokens: line for line in lines}
    if not steps:
        return None
    ordered = [steps[tokens] for tokens in sorted(steps)]
    masked = [measured_loss(line.mlm) for line in ordered]
    causal = [measured_loss(line.clm) for line in ordered]
    return Watched(sorted(steps), masked, causal)


def measured_loss(scores: Scores) -> float:
    """Return the loss, or NaN where nothing was predicted."""
    return scores.loss if scores.predicted else np.nan


def read_sources(files: Reader, prepared: PreparedData | None) -> dict[str, DataCard]:
    """Return the cards of the prepared sources.

    A card is expected only of a source that the recipe prepares itself.
    """
    inside = files.root / "data"
    if prepared:
        folders = {name: source_folder(inside, prepared, name) for name in prepared.settings.sources}
    else:
        folders = {path.parent.name: path.parent for path in sorted(inside.glob(f"*/{CARD}"))}
    cards = {}
    for name, folder in folders.items():
        own = prepared is None or not prepared.is_elsewhere(name)
        card = files.read(folder / CARD, f"Data of source {name}", DataCard, own) if folder else None
        if card:
            cards[name] = card
    return cards


def source_folder(inside: Path, prepared: PreparedData, name: str) -> Path | None:
    """Return the folder of a source, or None if it is at a URL.

    It is looked for below the run first, since the run may have been moved since the recipe was written.
    """
    folder = prepared.folder(name)
    if is_remote(folder):
        return None
    moved = inside.is_dir() and name not in prepared.settings.prepared
    return inside / name if moved else Path(folder)


def is_model(folder: Path) -> bool:
    """Return whether a folder holds a config and weights."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def parameters_of(folder: Path) -> int | None:
    """Return the number of weights in a model's files, or None if they cannot be read."""
    try:
        return sum(weights_in(path) for path in sorted(folder.glob("*.safetensors"))) or None
    except (OSError, SafetensorError):
        return None


def weights_in(path: Path) -> int:
    """Return the number of weights in a file, from its header."""
    with safe_open(path, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def absent_models(run: Run) -> list[str]:
    """Return a sentence for each arm without its exported model or its score."""
    unexported = [arm for arm in run.arms if arm not in run.exported]
    sentences = [f"The model of arm {arm}: models/{arm} holds no config and weights." for arm in unexported]
    if run.held_out:
        unscored = [arm for arm in run.arms if arm not in run.held_out.models]
        sentences += [f"Held-out scores: arm {arm} has not been measured." for arm in unscored]
    return sentences

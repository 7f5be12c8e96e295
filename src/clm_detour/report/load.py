"""From a run's folder to a `Run`: the only part of the report that knows files.

Whatever is absent, cut off or in another form is left out and named in `Run.missing`; only a folder that
holds none of a run's records is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from clm_detour.config.loading import load_config
from clm_detour.config.schema import Config
from clm_detour.data.cache import is_remote
from clm_detour.recipe.stream import is_prepared_elsewhere, prepared_folder
from clm_detour.records.run_folder import RunFolder
from clm_detour.report.analysis import parse_comparison, parse_gradients, parse_trajectory, parse_weights
from clm_detour.report.evaluation import parse_evaluation
from clm_detour.report.records import (
    Curve,
    Phase,
    Run,
    SourceReport,
    Watched,
    parse_arms,
    parse_filled_masks,
    parse_held_out,
    parse_left_out,
    parse_operations,
    parse_phase,
    parse_source,
    parse_steps,
)
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json, read_json_lines

T = TypeVar("T")

TRACES = ("config.yaml", "environment.json", "steps.json", "arms.json", "phases", "evaluation")


def load_run(run_dir: Path) -> Run:
    """Read what is there.

    Raises:
        UserError: `run_dir` is no folder, or holds nothing that a run leaves behind.
    """
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} is not a folder; give the run_dir of a recipe.")
    if not any((run_dir / trace).exists() for trace in TRACES):
        traces = ", ".join(TRACES)
        raise UserError(f"{run_dir} holds none of a run's records ({traces}); give the run_dir of a recipe.")
    folder, run = RunFolder(run_dir), Run(name=run_dir.resolve().name, folder=run_dir.resolve())
    files = Reader(run_dir, run.missing)
    run.config, run.config_text = read_config(files, folder.config)
    run.environment = files.read(folder.environment, "Versions and hardware", dict)
    run.steps = files.read(folder.steps, "What ran for how long", parse_steps) or []
    run.arms = files.read(folder.arms, "The arms", parse_arms) or planned_arms(run.config)
    run.phases = {id: read_phase(files, folder, id, run.config) for id in phase_ids(run_dir, run.arms)}
    run.sources = read_sources(files, run.config)
    run.held_out = files.read(folder.held_out, "Held-out scores", parse_held_out)
    run.filled_masks = files.read(folder.fill_masks, "Filled masks", parse_filled_masks) or []
    read_optional(files, folder, run)
    run.exported = [arm for arm in run.arms if is_model(folder.model(arm))]
    run.missing += absent_models(run)
    return run


def read_optional(files: Reader, folder: RunFolder, run: Run) -> None:
    """Records that not every run has: missed only where the recipe asks for them."""
    config = run.config
    asks_tasks = config is not None and config.evaluate.tasks is not None
    both = {"detour", "twin"} <= run.arms.keys()
    run.evaluation = files.read(
        folder.tasks / "summary.json", "Scores on tasks", parse_evaluation, asks_tasks
    )
    analysis, what = folder.analysis, "Comparison of the networks"
    # A file that cannot be read has been named where the steps themselves are read.
    left_out = Reader(files.root, []).read(folder.steps, "What was left out", parse_left_out, False) or {}
    reason = left_out.get("analysis")
    run.comparison = files.read(analysis / "compare.json", what, parse_comparison, both and not reason)
    if reason and both and run.comparison is None:
        run.left_out.append(f"{what}: left out. {reason}")
    run.trajectory = files.read(
        analysis / "trajectory.json", "Divergence on the way", parse_trajectory, False
    )
    run.weights = files.read(analysis / "weights.json", "Weight change", parse_weights, False) or []
    run.gradients = files.read(analysis / "gradients.json", "Gradients", parse_gradients, False) or {}
    run.operations = files.read(folder.plan, "Operations", parse_operations, False) or {}


@dataclass
class Reader:
    """Reads a run's JSON files and notes what it could not read."""

    root: Path
    missing: list[str]

    def read(self, path: Path, what: str, parse: Callable[[Any], T], expected: bool = True) -> T | None:
        """The parsed file, or None and a sentence in `missing`; a file that is not `expected` may be absent."""
        if not path.is_file():
            if expected:
                self.missing.append(f"{what}: {self.name(path)} has not been written.")
            return None
        try:
            return parse(read_json(path))
        except UserError:
            self.missing.append(f"{what}: {self.name(path)} is not valid JSON.")
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            self.missing.append(f"{what}: {self.name(path)} does not have the form that this version reads.")
        return None

    def name(self, path: Path) -> str:
        """The path below the run, or, of data that runs share, its end: a page may travel."""
        inside = path.is_relative_to(self.root)
        return (path.relative_to(self.root) if inside else Path(path.parent.name, path.name)).as_posix()


def read_config(files: Reader, path: Path) -> tuple[Config | None, str | None]:
    """The recipe, checked and as text."""
    if not path.is_file():
        files.missing.append(f"The recipe: {files.name(path)} has not been written.")
        return None, None
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return load_config(path), text
    except UserError:
        files.missing.append(f"The recipe: {files.name(path)} is not one that this version reads.")
        return None, text


def planned_arms(config: Config | None) -> dict[str, list[str]]:
    """The arms as the recipe names them, when no phase has begun."""
    arms = config.arms if config else {}
    return {arm: [".".join(names[: i + 1]) for i in range(len(names))] for arm, names in arms.items()}


def phase_ids(run_dir: Path, arms: dict[str, list[str]]) -> Iterable[str]:
    """Every phase once, in the arms' order; without arms, the folders that are there."""
    if arms:
        return dict.fromkeys(id for ids in arms.values() for id in ids)
    folder = run_dir / "phases"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()


def read_phase(files: Reader, run: RunFolder, id: str, config: Config | None) -> Phase:
    """A phase's end, or as far as it has come."""
    folder = run.phase(id)
    name = id.rsplit(".", 1)[-1]
    objective = config.phases[name].objective if config and name in config.phases else None
    if not folder.root.is_dir():
        files.missing.append(f"Phase {id}: it has not begun.")
        return Phase(id, objective, None, None)
    curve = read_curve(folder.metrics)
    if curve is None:
        files.missing.append(f"Phase {id}: {files.name(folder.metrics)} holds no logged step.")
    parsed = files.read(folder.record, f"The end of phase {id}", parse_phase)
    watched = read_watched(folder.held_out)
    if parsed is None:
        return Phase(id, objective, curve, None, watched)
    return Phase(id, parsed[0], curve, parsed[1], watched)


def read_curve(path: Path) -> Curve | None:
    """The logged steps in order.

    A broken line is skipped (a process killed while it writes leaves half of one), and of a step that was
    logged again after a resume the later line counts.
    """
    points: dict[int, tuple[float, ...]] = {}
    for entry in read_json_lines(path):
        with suppress(ValueError, KeyError, TypeError, OverflowError):
            numbers = (entry["loss"], entry["learning_rate"], entry["tokens_per_second"])
            optional = (entry.get(name) for name in ("mfu", "packing", "data_wait"))
            values = (np.nan if value is None else float(value) for value in (*numbers, *optional))
            points[int(entry["step"])] = (int(entry["tokens"]), *values)
    if not points:
        return None
    return Curve(*np.array([points[step] for step in sorted(points)]).T)


def read_watched(path: Path) -> Watched | None:
    """Held-out losses while the phase trained, if they were measured; broken lines are skipped, and lines without any prediction."""
    points: dict[int, tuple[float, float]] = {}
    for entry in read_json_lines(path):
        with suppress(ValueError, KeyError, TypeError):
            scores = [entry[kind] for kind in ("mlm", "clm")]
            if any(score.get("predicted", 1) for score in scores):
                masked, causal = map(watched_loss, scores)
                points[int(entry["tokens"])] = masked, causal
    if not points:
        return None
    masked_losses, causal_losses = zip(*(points[tokens] for tokens in sorted(points)), strict=True)
    return Watched(sorted(points), list(masked_losses), list(causal_losses))


def watched_loss(score: Mapping[str, Any]) -> float:
    """Return the loss, or no number where it was not finite or nothing was predicted."""
    if score["loss"] is None or not score.get("predicted", 1):
        return np.nan
    return float(score["loss"])


def read_sources(files: Reader, config: Config | None) -> dict[str, SourceReport]:
    """The prepared sources; no report is missed of one that this recipe did not prepare itself."""
    inside = files.root / "data"
    if config:
        folders = {name: source_folder(inside, config, name) for name in config.data.sources}
    else:
        folders = {path.parent.name: path.parent for path in sorted(inside.glob("*/card.json"))}
    reports = {}
    for name, folder in folders.items():
        own = config is None or not is_prepared_elsewhere(config, name)
        what = f"Data of source {name}"
        report = files.read(folder / "card.json", what, parse_source, own) if folder else None
        if report:
            reports[name] = report
    return reports


def source_folder(inside: Path, config: Config, name: str) -> Path | None:
    """Where a source lies: as the recipe says, or under the run, which may have been moved; None at a URL, from which nothing is fetched."""
    folder = prepared_folder(config, name)
    if is_remote(folder):
        return None
    moved = inside.is_dir() and name not in config.data.prepared
    return inside / name if moved else Path(folder)


def is_model(folder: Path) -> bool:
    """Whether a folder holds a config and weights."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def absent_models(run: Run) -> list[str]:
    """Arms without their exported model or their score."""
    unexported = [arm for arm in run.arms if arm not in run.exported]
    sentences = [f"The model of arm {arm}: models/{arm} holds no config and weights." for arm in unexported]
    if run.held_out:
        unscored = [arm for arm in run.arms if arm not in run.held_out.models]
        sentences += [f"Held-out scores: arm {arm} has not been measured." for arm in unscored]
    return sentences

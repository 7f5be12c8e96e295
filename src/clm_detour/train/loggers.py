"""Give each logger its values once: those of a phase while it trains, and its final scores.

metrics.jsonl and held_out.jsonl do not depend on it.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, cast

from composer.utils import MissingConditionalImportError

from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.run_folder import PhaseFolder
from clm_detour.train.parallel import is_main_process, run_on_main_process
from clm_detour.train.trackers import TRACKERS, Tracker, default_settings
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import finite, read_json, read_json_lines, write_json
from clm_detour.utils.rules import one_of

NOT_IN_A_NAME = re.compile(r"[^\w\-. :/]")  # what MLflow and TensorBoard do not take


@dataclass(frozen=True)
class LoggedAs:
    """The names under which a phase is logged: `logged_as.json` in its folder.

    Args:
        name: Its name in all loggers: the id of the phase and a random part.
        until: The last step that was logged before this process; -1: none was.
    """

    name: str
    until: int = -1


@dataclass(frozen=True)
class PhaseLog:
    """The loggers of a phase.

    Args:
        name: Its name in all loggers.
        trackers: One for each entry of `train.loggers`.
        before: Tokens of the arm before the phase.
        until: Step up to which values are left out, since they are logged. A phase that was killed repeats
            the steps after its newest checkpoint.
    """

    name: str
    trackers: Sequence[Tracker] = ()
    before: int = 0
    until: int = -1

    def log(self, values: Mapping[str, float], step: int, tokens: int) -> None:
        """Log those values that are finite; only the main process logs.

        Args:
            values: Values by name, such as `train/loss`.
            step: Step of the phase.
            tokens: Tokens since the start of the phase.
        """
        if step <= self.until or not is_main_process():
            return
        measured = {
            NOT_IN_A_NAME.sub("_", name): value for name, value in values.items() if finite(value) is not None
        }
        for tracker in self.trackers:
            tracker.record(measured, self.before + tokens)

    def describe(self, about: Mapping[str, Any]) -> None:
        """Log the names and the config, unless that was done before."""
        if self.until < 0 and is_main_process():
            for tracker in self.trackers:
                tracker.describe(about)


def open_log(recipe: Recipe, run: PhaseRun) -> PhaseLog:
    """Return the loggers of a phase; a phase that resumes continues the same run.

    The Trainer must get the name and the trackers, and starts them. Every process must call it.

    Raises:
        UserError: If a package is not installed, or an argument is not known.
    """
    settings = recipe.config.train.loggers
    if not settings:
        return PhaseLog(run.id)
    folder = recipe.folder.phase(run.id)
    logged = run_on_main_process(lambda: continue_log(folder, run.id))
    trackers = [make_tracker(recipe, run, name, logged.name) for name in settings]
    return PhaseLog(logged.name, trackers, tokens_before(run), logged.until)


def tokens_before(run: PhaseRun) -> int:
    """Return the tokens of the arm before a phase."""
    return sum(each.tokens for each in run.lineage[:-1])


def continue_log(folder: PhaseFolder, phase: str) -> LoggedAs:
    """Return how a phase is logged, and record it.

    Both files of JSON lines say what was logged: each line is written when its values are logged.
    """
    if not folder.logged_as.exists():
        logged = LoggedAs(f"{phase}-{secrets.token_hex(4)}")
    else:
        known = LoggedAs(**read_json(folder.logged_as))
        lines = [*read_json_lines(folder.metrics), *read_json_lines(folder.held_out)]
        logged = LoggedAs(known.name, max([known.until, *(line["step"] for line in lines)]))
    write_json(folder.logged_as, asdict(logged))
    return logged


def make_tracker(recipe: Recipe, run: PhaseRun, name: str, run_name: str) -> Tracker:
    """Return one tracker.

    Raises:
        UserError: If its package is not installed, or an argument is not known.
    """
    keys = recipe.config.train.loggers[cast(Any, name)] or {}
    check_arguments(name, keys)
    settings = default_settings(name, keys, recipe.folder.root, run_name, names_of(recipe, run))
    try:
        return TRACKERS[name](**settings)
    except (ImportError, MissingConditionalImportError):
        raise not_installed(name) from None


def names_of(recipe: Recipe, run: PhaseRun) -> dict[str, Any]:
    """Return the names of a recipe, the arms that have a phase, and the phase."""
    return {
        "recipe": recipe.folder.root.resolve().name,
        "arms": [arm for arm, runs in recipe.arms.items() if run.id in [each.id for each in runs]],
        "phase": run.id,
        "objective": run.phase.objective,
    }


def about(recipe: Recipe, run: PhaseRun) -> dict[str, Any]:
    """Return what a log says of its phase: names, and the config without folders of this machine."""
    names = names_of(recipe, run)
    return {"recipe": names["recipe"], "phase": run.id, "in_arms": names["arms"], **recipe.public_config()}


def log_scores(recipe: Recipe, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Log final scores at the last token of their phases, those that are new or have changed.

    Args:
        scores: Scores by the id of a phase and their name. A phase that was trained without loggers is left
            out.
    """
    path = recipe.folder.logged_scores
    known: dict[str, dict[str, dict[str, float]]] = read_json(path) if path.exists() else {}
    for name in recipe.config.train.loggers:
        done = known.setdefault(name, {})
        for phase, values in scores.items():
            new = {key: value for key, value in values.items() if done.get(phase, {}).get(key) != value}
            if new and recipe.folder.phase(phase).logged_as.exists():
                with reopened(recipe, recipe.phases[phase], name) as log:
                    log.log(new, 0, recipe.phases[phase].tokens)
                done[phase] = {**done.get(phase, {}), **new}
    write_json(path, known)


@contextmanager
def reopened(recipe: Recipe, run: PhaseRun, name: str) -> Iterator[PhaseLog]:
    """Open one logger of a finished phase without a Trainer, and close it again."""
    logged = LoggedAs(**read_json(recipe.folder.phase(run.id).logged_as))
    tracker = make_tracker(recipe, run, name, logged.name)
    state, unused = cast(Any, SimpleNamespace(run_name=logged.name)), cast(Any, None)
    tracker.init(state, unused)
    try:
        yield PhaseLog(logged.name, [tracker], tokens_before(run))
    finally:
        tracker.close(state, unused)
        tracker.post_close()


def check_logger(name: str, keys: Mapping[str, Any]) -> None:
    """Check that a logger's package is installed and that its class takes these arguments.

    Raises:
        UserError: If it is not, or does not.
    """
    check_arguments(name, keys)
    if importlib.util.find_spec(name) is None:
        raise not_installed(name)


def check_arguments(name: str, keys: Mapping[str, Any]) -> None:
    """Raise UserError if Composer's class lacks one of the arguments."""
    for key in keys:
        one_of(key, list(inspect.signature(TRACKERS[name]).parameters), f"train.loggers.{name}")


def not_installed(name: str) -> UserError:
    """Return the error for a logger whose package, or a package that it needs, is not installed."""
    return UserError(
        f"train.loggers: {name} is not installed; pip install 'clm-detour[{name}]', or take it out."
    )

"""Run the steps of a recipe in order, skip those that are done, and keep a record of them.

A step declares what it writes (`outputs`), what it reads (`inputs`) and what else its outputs depend on
(`settings`). One rule decides whether it has to run: see `Step.is_stale`. Inputs are compared by modification
time, as in make.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_detour.figures.wording import NARROW, duration
from clm_detour.records.run import StepRecord
from clm_detour.records.store import read_or_none, write
from clm_detour.utils.errors import UserError, on_one_line, sentence
from clm_detour.utils.files import read_json, write_json
from clm_detour.utils.interrupt import interrupted
from clm_detour.utils.progress import console, numbered, warn
from clm_detour.utils.started_with import check


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Args:
        name: Key of the step in `steps.json`.
        title: Name of the step on the console and on the page.
        work: Function that does the step. It returns a sentence if the step cannot be done, and False if
            there was nothing to do, which only a step without outputs finds out while it works.
        outputs: Files that exist once the step is done. A step without outputs always runs and keeps its own
            records.
        inputs: Files that the outputs are made from.
        settings: Values that the outputs depend on.
        settings_file: File that records the settings, by default `X.settings.json` beside the first output
            `X.json`. It may be one of the outputs, if the work itself records the settings there.
        fixed: Whether different settings are an error, because later steps build on the outputs. The settings
            of such a step are recorded before the work, the settings of others after it.
    """

    name: str
    title: str
    work: Callable[[], str | bool | None]
    outputs: Sequence[Path] = ()
    inputs: Sequence[Path] = ()
    settings: Mapping[str, Any] | None = None
    settings_file: Path | None = None
    fixed: bool = False

    def is_stale(self) -> bool:
        """Return whether an output is missing, an input is newer than an output, or recorded settings differ.

        Raises:
            UserError: If an input is missing, or if the settings are fixed and differ.
        """
        self.check_fixed_settings()
        if not self.outputs or not all(path.exists() for path in self.outputs):
            return True
        for path in self.inputs:
            if not path.exists():
                raise UserError(f"{path} is missing; run the step that makes it first.")
        oldest = min(path.stat().st_mtime for path in self.outputs)
        return any(path.stat().st_mtime > oldest for path in self.inputs) or self.settings_differ()

    def check_fixed_settings(self) -> None:
        """Raise UserError if the settings are fixed and the step was started with others."""
        if self.fixed and self.settings is not None:
            check(self.path_of_settings, self.settings)

    def settings_differ(self) -> bool:
        """Return whether the settings are not those that were recorded with the outputs."""
        if self.settings is None or self.fixed:
            return False
        path = self.path_of_settings
        recorded = read_json(path) if path.exists() else {}
        return any(recorded.get(key) != value for key, value in self.settings.items())

    @property
    def path_of_settings(self) -> Path:
        """File that records the settings."""
        return self.settings_file or self.outputs[0].with_suffix(".settings.json")

    def do(self) -> str | bool | None:
        """Do the work, record the settings, and return what the work returned."""
        recorded_by_work = self.settings is None or self.path_of_settings in self.outputs
        if self.fixed and not recorded_by_work:
            write_json(self.path_of_settings, self.settings)
        outcome = self.work()
        if not self.fixed and not recorded_by_work and not isinstance(outcome, str):
            write_json(self.path_of_settings, self.settings)
        return outcome


class StepRunner:
    """Runs steps, and records in `steps.json` how long they took.

    Args:
        path: The file `steps.json`.
        total: Number of all steps, which is printed with the number of each; None prints no numbers.

    Attributes:
        started: Number of steps that were started, or found to be done.
        ran: Number of steps that had something to do.
        failed: Errors of optional steps.
    """

    def __init__(self, path: Path, total: int | None = None):
        self.path = path
        self.total = total
        self.started = 0
        self.records = read_or_none(list[StepRecord], path) or []
        self.ran = 0
        self.failed: list[Exception] = []

    def run(self, step: Step) -> None:
        """Run a step if it is stale."""
        start = time.monotonic()
        self.started += 1
        with numbered(f"{self.started}/{self.total}" if self.total else None):
            outcome = step.do() if step.is_stale() else False
        if outcome is False:
            console.print(f"{self.name(step)}: done before", style="dim")
        elif isinstance(outcome, str):
            warn(f"{self.name(step)}: left out. {outcome}")
            self.record(step, left_out=outcome)
        else:
            self.ran += 1
            seconds = time.monotonic() - start
            console.print(f"{self.name(step)}: {duration(seconds).replace(NARROW, ' ')}", style="green")
            finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            self.record(step, seconds=round(seconds, 2), finished=finished)

    def run_optional(self, step: Step) -> None:
        """Run a step that the page can do without; print its error and keep it in `failed`."""
        try:
            self.run(step)
        except Exception as error:
            if interrupted():  # a library may have turned KeyboardInterrupt into an error of its own
                raise
            self.failed.append(error)
            reason = f"{type(error).__name__}: {on_one_line(error)}."
            why = sentence(error) if isinstance(error, UserError) else reason
            warn(f"{self.name(step)}: left out. {why}")

    def name(self, step: Step) -> str:
        """Return the title of the step that was started last, with its number."""
        return f"Step {self.started} of {self.total}. {step.title}" if self.total else step.title

    def record(self, step: Step, **outcome: Any) -> None:
        """Replace the record of a step in `steps.json`."""
        others = [record for record in self.records if record.step != step.name]
        self.records = [*others, StepRecord(step=step.name, title=step.title, **outcome)]
        write(self.records, self.path, list[StepRecord])

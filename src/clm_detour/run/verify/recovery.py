"""Check 4: a phase that is asked to leave, killed, and resumed by other numbers of processes, sharded or not.

One phase goes through all of it: it starts under DDP and is asked to leave after its first checkpoint; goes
on under FSDP2, until one process is killed; and is finished by one process. Its weights must then be those of
the run that nothing disturbed.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from clm_detour.records.verify import Check
from clm_detour.run.verify.checks import Group
from clm_detour.run.verify.compare import weights
from clm_detour.run.verify.programs import POLL, Program, last_line, launcher
from clm_detour.run.verify.settings import Settings
from clm_detour.run.verify.small_recipe import (
    ARM,
    PHASE,
    folder_of,
    overrides,
    recipe_file,
    recipe_of,
)
from clm_detour.utils.signals import REQUEUE

RUN = "recovery"
ALL_END = 60.0  # seconds in which all processes must have ended after one was killed

recovery = Group("recovery")


def train_until_asked(settings: Settings) -> None:
    """Train the phase, in every process; the command asks them to leave."""
    from clm_detour.train.phase import train_phase

    recipe = recipe_of(settings, RUN)
    train_phase(recipe, recipe.phase(ARM, PHASE))


class AskToLeave:
    """Asks the program to leave as soon as the phase has a checkpoint."""

    def __init__(self, settings: Settings):
        self.checkpoints = folder_of(settings, RUN).checkpoints
        self.asked = False

    def watch(self, program: Program) -> None:
        """Send SIGTERM once there is a checkpoint."""
        if not self.asked and steps_in(self.checkpoints):
            self.asked = True
            program.process.send_signal(signal.SIGTERM)

    def checks(self, program: Program) -> Iterator[Check]:
        """Yield the check of the exit code."""
        name = "asked to leave: exit code"
        if self.asked:
            yield recovery.equal(name, program.process.returncode, REQUEUE, last_line(program.log))
        else:
            yield recovery.left_out(name, "the processes did not get that far")


def check_resuming(settings: Settings, deadline: float) -> Iterator[Check]:
    """Resume under FSDP2, kill a process, and finish the phase in one process."""
    folder = folder_of(settings, RUN)
    several = settings.processes > 1
    before = max(steps_in(folder.checkpoints), default=0)
    with Program(settings, "resumed", [*launcher(settings.processes), *training(settings)]) as program:
        seconds = kill_one(settings, program, folder.checkpoints, before, deadline)
    reached = max(steps_in(folder.checkpoints), default=0)
    name = "resumed, DDP to FSDP2: new steps" if several else "resumed: new steps"
    yield recovery.at_least(name, reached - before, 1, where=last_line(program.log))
    if seconds is None:
        yield recovery.failed("one process killed", f"none was left to kill: {last_line(program.log)}")
    else:
        yield recovery.at_most("one process killed: all ended after", round(seconds, 1), ALL_END, "s")
    if not several:
        yield recovery.left_out("DDP to FSDP2", "there is one process")
    with Program(settings, "finished", training(settings)) as program:
        code = wait(program, deadline)
    label = "resumed by one process" if several else "resumed"
    yield recovery.equal(f"{label}: exit code", code, 0, last_line(program.log))
    if code == 0:
        yield weights(recovery, label, folder, folder_of(settings, "ddp"), computed(settings))


def computed(settings: Settings) -> str:
    """Return the precision of the training, `bf16` or `fp32`."""
    from clm_detour.records.phase import PhaseRecord
    from clm_detour.records.store import read

    return read(PhaseRecord, folder_of(settings, "ddp").record).precision


def training(settings: Settings) -> list[str]:
    """Return the arguments of Python that train the phase; one process ignores how it would be sharded."""
    words = [str(recipe_file(settings)), f"arm={ARM}", f"phase={PHASE}"]
    return ["-m", "clm_detour.train", *words, *overrides(settings, RUN, "train.parallel=fsdp")]


def kill_one(
    settings: Settings, program: Program, checkpoints: Path, before: int, deadline: float
) -> float | None:
    """Kill the last process once there is a checkpoint after step `before`.

    Returns:
        Seconds until all processes had ended, at least `ALL_END` if they had not; None if none could be
        killed.
    """
    while max(steps_in(checkpoints), default=0) <= before:
        if program.process.poll() is not None or time.monotonic() - program.start > deadline:
            return None
        time.sleep(POLL)
    processes = [process for process in psutil.Process(program.process.pid).children() if rank_of(process)]
    if not processes:
        return None
    max(processes, key=lambda process: int(rank_of(process) or 0)).kill()
    start = time.monotonic()
    while program.process.poll() is None and time.monotonic() - start <= ALL_END:
        time.sleep(POLL)
    psutil.wait_procs(processes, timeout=max(0.0, ALL_END - (time.monotonic() - start)))
    left = program.process.poll() is None or any(map(runs, processes))
    return float("inf") if left else time.monotonic() - start


def rank_of(process: psutil.Process) -> str | None:
    """Return the rank of a process, or None if it has none or has ended."""
    with suppress(psutil.Error):
        return process.environ().get("RANK")
    return None


def runs(process: psutil.Process) -> bool:
    """Return whether a process still runs."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait(program: Program, deadline: float) -> int | None:
    """Return the exit code of a program, or None if it did not end in time."""
    while program.process.poll() is None and time.monotonic() - program.start <= deadline:
        time.sleep(POLL)
    return program.process.poll()


def steps_in(checkpoints: Path) -> list[int]:
    """Return the steps of the checkpoints in a folder; a checkpoint has its name once it is whole."""
    return [int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*")]

"""Starting a phase: here in this process on a CPU or one GPU, through the composer launcher on several, on one machine or many."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType

import torch

from clm_detour.config.loading import save_config
from clm_detour.config.schema import Config
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.recipe.phases import PhaseRun, check_world
from clm_detour.recipe.settings import is_finished
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.errors import USER_ERROR, UserError
from clm_detour.utils.interrupt import LAUNCHED, interrupts_held
from clm_detour.utils.signals import REQUEUE, Requeue, handlers_kept, on_signals

NODE_VARIABLES = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def launch_phase(config: Config, run: PhaseRun, tokenizer: Tokenizer) -> bool:
    """Train `run` on all GPUs of this machine, together with other machines if WORLD_SIZE says that there are any.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: it cannot be trained, or the launched processes failed.
        Requeue: it was asked to leave.
    """
    if is_finished(config, run, tokenizer):
        return False
    here = max(torch.cuda.device_count(), 1)
    world = world_size(here)
    check_world(config, world)
    if world > 1:
        launch_processes(config, run, here)
        return True
    with handlers_kept():
        from clm_detour.train.phase import train_phase  # Composer takes seconds to import

    return train_phase(config, run)


def world_size(here: int) -> int:
    """Processes over all machines: WORLD_SIZE, or those of this one.

    Raises:
        UserError: the variables that Composer's launcher reads do not fit together.
    """
    text = os.environ.get("WORLD_SIZE", str(here))
    if not text.isdigit() or int(text) < here or int(text) % here:
        raise UserError(
            f"WORLD_SIZE is {text}, but this machine runs {here} processes; set it to {here} times the number of machines, or unset it."
        )
    missing = [name for name in NODE_VARIABLES if name not in os.environ]
    if int(text) > here and missing:
        raise UserError(
            f"WORLD_SIZE is {text}, so {', '.join(missing)} must be set too (see scripts/train.slurm)."
        )
    return int(text)


def is_first_node() -> bool:
    """Whether this machine does what only one has to: NODE_RANK is 0 or not set."""
    return os.environ.get("NODE_RANK", "0") == "0"


def launch_processes(config: Config, run: PhaseRun, processes: int) -> None:
    """Run `clm_detour.train.main` on this machine's processes under the launcher."""
    resolved = RunFolder.of(config).config
    if not is_first_node():  # machines share the folder
        resolved = resolved.with_name(f".config.node{os.environ['NODE_RANK']}.yaml")
    save_config(config, resolved)
    names = [step.name for step in run.lineage]
    arm = next(arm for arm, phases in config.arms.items() if phases[: len(names)] == names)
    words = ["-m", "clm_detour.train.main", str(resolved), f"arm={arm}", f"phase={run.name}"]
    code = run_launcher(processes, words, run.id)
    if code:
        raise UserError(
            f"Phase {run.id} stopped with exit code {code}, for the reason above; run again to go on."
        )


def run_launcher(processes: int, words: list[str], name: str) -> int:
    """Start the launcher and wait for its end; it prints why a process failed.

    Args:
        words: what every process runs, as the launcher takes it.
        name: what that is, for people.

    Returns:
        The exit code.

    Raises:
        Requeue: it was asked to leave.
        SystemExit: a process found a user's mistake and has said so.
    """
    with interrupts_held():
        process = subprocess.Popen(
            [sys.executable, "-m", "clm_detour.train.launcher", "-n", str(processes), *words],
            env={**os.environ, LAUNCHED: "1"},
        )
    asked = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        process.send_signal(number)

    with on_signals(pass_on):
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    if code == REQUEUE or (code and asked):  # asked before its processes could listen
        raise Requeue(f"Asked to leave in {name}")
    if code == USER_ERROR:
        sys.exit(USER_ERROR)
    return code


def launch_bench(path: str, words: list[str], gpus: str | None) -> None:
    """Run `clm_detour.train.bench` here for one process, or under the launcher for several, or for each of several numbers.

    Raises:
        UserError: it cannot be measured.
    """
    with handlers_kept():
        from clm_detour.train.bench import bench, numbers  # Composer takes seconds to import

    counts = numbers(gpus) if gpus else [max(torch.cuda.device_count(), 1)]
    if counts == [1]:
        bench(path, words)
        return
    # One process too is started: this one would keep what it took of a GPU's memory while the others are measured.
    for processes in counts:
        code = run_launcher(processes, ["-m", "clm_detour.train.bench", path, *words], "a measurement")
        if code:
            raise UserError(f"The measurement stopped with exit code {code}, for the reason above.")

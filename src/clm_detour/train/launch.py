"""Start a phase: in this process on a CPU or one GPU, under the launcher on several GPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType

import torch

from clm_detour.config.loading import save_config
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.train import require_composer
from clm_detour.train.deterministic import prepare_environment
from clm_detour.train.nested import check_started_once
from clm_detour.utils.errors import USER_ERROR, UserError
from clm_detour.utils.interrupt import LAUNCHED, interrupts_held
from clm_detour.utils.signals import REQUEUE, Requeue, handlers_kept, on_signals

NODE_VARIABLES = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def launch_phase(recipe: Recipe, run: PhaseRun) -> bool:
    """Train a phase on all GPUs of this machine, and of other machines if WORLD_SIZE counts them.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: If the phase cannot be trained, the launched processes failed, or Composer is not
            installed.
        Requeue: If it was asked to stop.
    """
    if recipe.is_finished(run):
        return False
    require_composer()
    prepare_environment(recipe.config.train, os.environ)
    local = max(torch.cuda.device_count(), 1)
    world = world_size(local)
    recipe.check_world_size(world)
    if world > 1:
        launch_processes(recipe, run, local)
        return True
    with handlers_kept():
        from clm_detour.train.phase import train_phase  # Composer takes seconds to import

    return train_phase(recipe, run)


def world_size(local: int) -> int:
    """Return the number of processes over all machines: WORLD_SIZE if it is set, else that of this machine.

    Args:
        local: Number of processes on this machine.

    Raises:
        UserError: If the variables that Composer's launcher reads do not fit together.
    """
    text = os.environ.get("WORLD_SIZE", str(local))
    if not text.isdigit() or int(text) < local or int(text) % local:
        raise UserError(
            f"WORLD_SIZE is {text}, but this machine runs {local} processes; set it to {local} times the "
            "number of machines, or unset it."
        )
    missing = [name for name in NODE_VARIABLES if name not in os.environ]
    if int(text) > local and missing:
        raise UserError(
            f"WORLD_SIZE is {text}, so {', '.join(missing)} must be set too (see scripts/train.slurm)."
        )
    return int(text)


def is_first_node() -> bool:
    """Return whether this machine does the work that only one machine must do: NODE_RANK is 0 or not set."""
    return os.environ.get("NODE_RANK", "0") == "0"


def launch_processes(recipe: Recipe, run: PhaseRun, processes: int) -> None:
    """Train a phase on several processes of this machine under the launcher.

    Raises:
        UserError: If the processes failed.
    """
    resolved = recipe.folder.config
    if not is_first_node():  # machines share the folder
        resolved = resolved.with_name(f".config.node{os.environ['NODE_RANK']}.yaml")
    save_config(recipe.config, resolved)
    arm = next(arm for arm, runs in recipe.arms.items() if run.id in [each.id for each in runs])
    words = ["-m", "clm_detour.train", str(resolved), f"arm={arm}", f"phase={run.name}"]
    code = run_launcher(processes, words, run.id)
    if code:
        raise UserError(
            f"Phase {run.id} stopped with exit code {code}, for the reason above; "
            "the same command resumes it."
        )


def run_launcher(processes: int, words: list[str], name: str) -> int:
    """Run the launcher to its end. It prints why a process failed.

    Args:
        words: Arguments of the launcher that say what every process runs.
        name: Name of the work, for the message.

    Returns:
        The exit code.

    Raises:
        Requeue: If it was asked to stop.
        SystemExit: If a process found a user's mistake, which it has printed.
    """
    with interrupts_held():
        process = subprocess.Popen(
            [sys.executable, "-m", "clm_detour.train.launcher", "-n", str(processes), *words],
            env={**os.environ, LAUNCHED: "1"},
        )
    signals = []

    def forward(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        process.send_signal(number)

    with on_signals(forward):
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    if code == REQUEUE or (code and signals):  # before its processes had a handler
        raise Requeue(f"Asked to stop in {name}")
    if code == USER_ERROR:
        sys.exit(USER_ERROR)
    return code


def launch_bench(path: str, words: list[str], gpus: str | None) -> None:
    """Run `clm_detour.train.bench` in this process, or under the launcher once for each number of processes.

    Args:
        words: Command-line arguments of `clm_detour.train.bench` after the config.
        gpus: Numbers of processes, separated by commas; None: one for each GPU.

    Raises:
        UserError: If the phase cannot be measured, or Composer is not installed.
    """
    require_composer()
    check_started_once("clm-detour bench")
    with handlers_kept():
        from clm_detour.train.bench import bench, numbers  # Composer takes seconds to import

    counts = numbers(gpus) if gpus else [max(torch.cuda.device_count(), 1)]
    if counts == [1]:
        bench(path, words)
        return
    # A single process is started too: this one would keep its GPU memory during the next measurements.
    for processes in counts:
        code = run_launcher(processes, ["-m", "clm_detour.train.bench", path, *words], "a measurement")
        if code:
            raise UserError(f"The measurement stopped with exit code {code}, for the reason above.")

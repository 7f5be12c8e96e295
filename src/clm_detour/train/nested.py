"""Refuse a command that starts processes where a launcher has started it several times already."""

from __future__ import annotations

import os
import re

from clm_detour.utils.errors import UserError

PHASE = "-m clm_detour.train CONFIG arm=ARM phase=PHASE"


def check_started_once(command: str) -> None:
    """Check that a command which launches the processes of this machine runs once here.

    Args:
        command: The command, for the message.

    Raises:
        UserError: If torchrun, Composer's launcher or srun started it in several processes.
    """
    if "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        elastic = "TORCHELASTIC_RUN_ID" in os.environ
        name, option = ("torchrun", "--nproc-per-node") if elastic else ("a launcher", "-n")
        started = os.environ.get("LOCAL_WORLD_SIZE", "N")
        launcher = "torchrun" if elastic else "composer"
        raise UserError(
            f"`{command}` starts the processes of this machine itself, but {name} has started {started} of "
            f"it; use `{command}` alone, or train one phase: {launcher} {option} {started} {PHASE}."
        )
    if (tasks := tasks_of_srun()) > 1:
        raise UserError(
            f"`{command}` starts the processes of a machine itself, but srun starts {tasks} of it on each; "
            "use srun --ntasks-per-node=1 (see scripts/train.slurm)."
        )


def check_not_a_task_of_many() -> None:
    """Check that a process that trains alone is not one of several that srun started on this machine.

    Raises:
        UserError: If it is; each of them would take itself for the only one.
    """
    if "RANK" not in os.environ and (tasks := tasks_of_srun()) > 1:
        raise UserError(
            f"srun starts {tasks} processes on this machine, which do not know of each other; use srun "
            f"--ntasks-per-node=1 torchrun --nproc-per-node {tasks} {PHASE}, or scripts/train.slurm."
        )


def tasks_of_srun() -> int:
    """Return how many tasks of the srun that started this process run on a machine, at most; 1 without srun.

    A job may be granted several tasks for each machine (SLURM_NTASKS_PER_NODE) and start one of them, so only
    the variables of the step count: SLURM_STEP_TASKS_PER_NODE is like `4(x2),3`.
    """
    listed = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    counts = [int(number) for number in re.findall(r"(?:^|,)(\d+)", listed)]
    local = os.environ.get("SLURM_LOCALID", "0")
    return max([1, *counts, int(local) + 1 if local.isdigit() else 1])

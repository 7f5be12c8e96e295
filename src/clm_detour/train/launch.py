"""Starting a phase: here in this process on a CPU or one GPU, through the composer launcher on several."""

from __future__ import annotations

import subprocess
import sys

import torch

from clm_detour.config.load import save_config
from clm_detour.config.schema import Config
from clm_detour.errors import UserError
from clm_detour.run_folder import RunFolder
from clm_detour.train.recipe import PhaseRun
from clm_detour.train.settings import is_finished


def launch_phase(config: Config, run: PhaseRun) -> bool:
    """Train `run` on all GPUs of this machine.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: it cannot be trained, or the launched processes failed.
    """
    if is_finished(config, run):
        return False
    if torch.cuda.device_count() > 1:
        launch_processes(config, run, torch.cuda.device_count())
        return True
    from clm_detour.train.phase import train_phase  # Composer takes seconds to import

    return train_phase(config, run)


def launch_processes(config: Config, run: PhaseRun, processes: int) -> None:
    """Run `clm_detour.train.main` under the composer launcher."""
    resolved = RunFolder.of(config).config
    save_config(config, resolved)
    names = [step.name for step in run.lineage]
    arm = next(arm for arm, phases in config.arms.items() if phases[: len(names)] == names)
    launcher = [
        sys.executable,
        "-m",
        "composer.cli.launcher",
        "-n",
        str(processes),
        "-m",
        "clm_detour.train.main",
    ]
    words = [*launcher, str(resolved), f"arm={arm}", f"phase={run.name}"]
    code = subprocess.run(words, check=False).returncode
    if code:
        raise UserError(
            f"Phase {run.id} stopped with exit code {code}, for the reason above; run again to go on."
        )

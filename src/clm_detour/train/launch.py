"""Starting a phase: here in this process on a CPU or one GPU, through the composer launcher on several."""

from __future__ import annotations

import subprocess
import sys

from clm_detour.config.load import save_config
from clm_detour.config.schema import Config
from clm_detour.errors import UserError
from clm_detour.run_folder import RunFolder
from clm_detour.train.recipe import PhaseRun


def launch_phase(config: Config, run: PhaseRun) -> bool:
    """Train `run` on all GPUs of this machine.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: the launched processes failed.
    """
    import torch

    folder = RunFolder.of(config).phase(run.id)
    gpus = torch.cuda.device_count()
    if gpus <= 1 or folder.finished:
        from clm_detour.train.phase import train_phase

        return train_phase(config, run)
    resolved = RunFolder.of(config).config
    save_config(config, resolved)
    arm = next(arm for arm, names in config.arms.items() if run.id.split(".") == names[: len(run.lineage)])
    command = [
        "-n",
        str(gpus),
        "-m",
        "clm_detour.train.main",
        str(resolved),
        f"arm={arm}",
        f"phase={run.name}",
    ]
    code = subprocess.run([sys.executable, "-m", "composer.cli.launcher", *command], check=False).returncode
    if code:
        raise UserError(
            f"Phase {run.id} stopped with exit code {code}; its message stands above. Run again to go on."
        )
    return True

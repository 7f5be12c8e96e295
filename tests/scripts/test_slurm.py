"""The Slurm script gives each process its cores and the first node, and requeues the job at exit code 75."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.slurm"
SRUN = '#!/bin/bash\nenv | grep -E "^(SRUN|MASTER|WORLD)_" | sort\necho "$@"\nexit {code}\n'
SCONTROL = '#!/bin/bash\nif [ "$1" = show ]; then echo first; echo second; else echo "$@"; fi\n'
SLURM = {
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_JOB_ID": "20017",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_GPUS_PER_NODE": "h100:4",
    "SLURM_CPUS_PER_TASK": "32",
}


@pytest.mark.parametrize("code", [0, 2, 75])
def test_the_script_starts_the_command_with_its_cores_on_every_node(tmp_path, code):
    for name, text in (("srun", SRUN.format(code=code)), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **SLURM}
    command = ["bash", str(SCRIPT), "mine.yaml", "seed=3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[:4] == ["MASTER_ADDR=first", "MASTER_PORT=20017", "SRUN_CPUS_PER_TASK=32", "WORLD_SIZE=8"]
    assert lines[4].endswith("run mine.yaml seed=3")
    assert done.returncode == code
    assert ("requeue 20017" in lines) == (code == 75)

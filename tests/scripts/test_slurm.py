"""The Slurm script gives each process its cores and the first node, and requeues the job at exit code 75."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from slurm_stand_ins import SCONTROL, SLURM

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.slurm"
SRUN = '#!/bin/bash\nenv | grep -E "^(SRUN|MASTER|WORLD|OMP)_" | sort\necho "$@"\nexit {code}\n'


@pytest.fixture
def submit(tmp_path):
    """A function that runs the script with commands of Slurm that print what they are given."""

    def run(srun: str, **variables: str) -> subprocess.CompletedProcess[str]:
        for name, text in (("srun", srun), ("scontrol", SCONTROL)):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **SLURM, **variables}
        environment = {name: value for name, value in environment.items() if value}
        command = ["bash", str(SCRIPT), "mine.yaml", "seed=3"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("code", [0, 2, 75])
def test_the_script_starts_the_command_with_its_cores_on_every_node(submit, code):
    done = submit(SRUN.format(code=code))
    lines = done.stdout.splitlines()
    assert lines[:5] == [
        "MASTER_ADDR=first",
        "MASTER_PORT=20017",
        "OMP_NUM_THREADS=8",
        "SRUN_CPUS_PER_TASK=32",
        "WORLD_SIZE=8",
    ]
    assert lines[5].endswith("run mine.yaml seed=3")
    assert done.returncode == code
    assert ("requeue 20017" in lines) == (code == 75)


@pytest.mark.parametrize(
    ("variables", "threads", "world"),
    [
        ({"SLURM_GPUS_PER_NODE": "", "SLURM_GPUS_ON_NODE": "4"}, 8, 8),  # sbatch --gres=gpu:4
        ({"OMP_NUM_THREADS": "3"}, 3, 8),
        ({"SLURM_CPUS_PER_TASK": "2"}, 1, 8),
        ({"SLURM_GPUS_PER_NODE": "3", "SLURM_JOB_NUM_NODES": "1"}, 10, 3),
    ],
)
def test_threads_and_processes_follow_from_the_job(submit, variables, threads, world):
    lines = submit(SRUN.format(code=0), **variables).stdout.splitlines()
    assert f"OMP_NUM_THREADS={threads}" in lines
    assert f"WORLD_SIZE={world}" in lines


def test_every_node_runs_the_command_once_under_its_own_number(submit, tmp_path):
    command = tmp_path / "clm-detour"
    command.write_text('#!/bin/bash\necho "$NODE_RANK of $WORLD_SIZE: $*"\n')
    command.chmod(0o755)
    tasks = '#!/bin/bash\nshift\nfor SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done\n'
    assert submit(tasks).stdout.splitlines() == [
        "0 of 8: run mine.yaml seed=3",
        "1 of 8: run mine.yaml seed=3",
    ]

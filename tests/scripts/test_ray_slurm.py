"""The Slurm script for a cluster starts Ray on each node, passes a signal on, and requeues at code 75."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from slurm_stand_ins import SCONTROL, SLURM

SCRIPT = Path(__file__).parents[2] / "scripts" / "ray.slurm"
SRUN = '#!/bin/bash\nenv | grep ^SRUN_\nexec "$@"\n'
RAY = '#!/bin/bash\necho "ray $*"\nwhile [ "$1" != -- ]; do shift; done\nshift\n"$@"\n'


@pytest.fixture
def submit(tmp_path):
    """A function that starts the script with commands of Slurm and Ray that print what they are given."""

    def start(*command: str, **variables: str) -> subprocess.Popen[str]:
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("ray", RAY)):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        environment = {"PATH": path, "TMPDIR": str(tmp_path), **SLURM, **variables}
        words = ["bash", str(SCRIPT), *command]
        return subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


@pytest.mark.parametrize("code", [0, 2, 75])
def test_the_command_runs_once_in_a_cluster_of_all_nodes(submit, code):
    running = submit("bash", "-c", f'echo "command $1"; exit {code}', "name", "two words")
    lines = running.communicate(timeout=60)[0].splitlines()
    assert lines[0] == "SRUN_CPUS_PER_TASK=32"
    assert lines[1].startswith(
        "ray symmetric-run --address first:20017 --min-nodes 2 --num-cpus=32 --num-gpus=4 "
    )
    assert lines[2] == "command two words"
    assert running.returncode == code
    assert ("requeue 20017" in lines) == (code == 75)


def test_nodes_without_gpus(submit):
    assert "--num-gpus=0" in submit("true", SLURM_GPUS_PER_NODE="").communicate(timeout=60)[0]


def test_a_job_without_a_command_is_refused_with_a_sentence(submit):
    running = submit()
    assert running.communicate(timeout=60)[1].startswith(
        "Give a command: sbatch scripts/ray.slurm clm-detour"
    )
    assert running.returncode == 2


def test_the_warning_before_the_time_limit_reaches_the_command_and_nothing_else(submit, tmp_path):
    (tmp_path / "begun.sh").write_text(
        f"trap 'exit 75' USR1\ntouch {tmp_path}/begun\nwhile true; do sleep 0.05; done"
    )
    running = submit("bash", f"{tmp_path}/begun.sh")
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGUSR1)
    lines = running.communicate(timeout=60)[0].splitlines()
    assert running.returncode == 75
    assert lines[-1] == "requeue 20017"
    assert not list(tmp_path.glob("*.pid"))


def test_the_options_that_the_script_gives_to_ray_exist():
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from ray.scripts.scripts import cli

    known = {
        option
        for name in ("symmetric-run", "start")
        for each in cli.commands[name].params
        for option in each.opts
    }
    used = {word.partition("=")[0] for word in SCRIPT.read_text().split() if word.startswith("--")}
    used -= {"--nodes", "--gpus-per-node", "--engine", "--model", "--job-name", "--ntasks-per-node"}
    used -= {"--cpus-per-task", "--time", "--signal", "--requeue", "--open-mode", "--output", "--"}
    assert {"--address", "--min-nodes", "--num-cpus"} <= used <= known

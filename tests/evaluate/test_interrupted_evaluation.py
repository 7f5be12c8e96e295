"""Ctrl-C ends the runs of an evaluation, and leaves no process and no half-written file."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from clm_detour.utils.files import HALF_WRITTEN
from commands import Command

pytestmark = pytest.mark.slow

EVALUATION = """
name: made
run_dir: {folder}
tasks: [SampleVerdict]
seeds: [1, 2, 3, 4, 5, 6, 7, 8, 9]
documents: 12
jobs: 2
protocol: {{epochs: 100000}}
"""


@pytest.mark.parametrize("moment", ["processes start", "two runs are under way"])
def test_ctrl_c_in_an_evaluation(encoders, tmp_path, moment):
    config, folder = tmp_path / "eval.yaml", tmp_path / "run"
    config.write_text(EVALUATION.format(folder=folder))
    words = [sys.executable, "-c", "from clm_detour.__main__ import main; main()", "evaluate", str(config)]
    command = Command([*words, f"--model=ours={encoders['modernbert']}"], tmp_path / "log")
    if moment == "processes start":
        command.wait_until(lambda: command.children() >= 2)
    else:
        command.wait_until(lambda: runs_under_way(command) == 2)
    command.assert_leaves_at_ctrl_c()
    assert not list(folder.rglob(HALF_WRITTEN))


def runs_under_way(command: Command) -> int:
    """Count the workers that have begun a run: they load torch with their first one."""
    count = 0
    for process in psutil.Process(command.process.pid).children():
        with suppress(OSError):  # it has ended
            count += "libtorch_cpu" in Path(f"/proc/{process.pid}/maps").read_text()
    return count

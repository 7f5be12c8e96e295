"""Ctrl-C ends the runs of an evaluation that are under way, and leaves no process and no half-written file."""

from __future__ import annotations

import sys

import pytest

from clm_detour.files import HALF_WRITTEN
from commands import Command

EVALUATION = """
name: made
run_dir: {folder}
tasks: [SampleVerdict]
seeds: [1, 2, 3, 4, 5, 6, 7, 8, 9]
documents: 12
jobs: 2
protocol: {{epochs: {epochs}}}
"""


@pytest.mark.parametrize(("epochs", "moment"), [(100_000, "processes start"), (2, "a run is done")])
def test_ctrl_c_in_an_evaluation(encoders, tmp_path, epochs, moment):
    config, folder = tmp_path / "eval.yaml", tmp_path / "run"
    config.write_text(EVALUATION.format(folder=folder, epochs=epochs))
    words = [sys.executable, "-c", "from clm_detour.__main__ import main; main()", "evaluate", str(config)]
    command = Command([*words, f"--model=ours={encoders['modernbert']}"], tmp_path / "log")
    if moment == "processes start":
        command.wait_until(lambda: command.children() >= 2)
    else:
        command.wait_until(lambda: bool(list(folder.glob("*/*/[0-9].json"))))
    command.assert_leaves_at_ctrl_c()
    assert not list(folder.rglob(HALF_WRITTEN))
    assert len(list(folder.glob("*/*/[0-9].json"))) < 9

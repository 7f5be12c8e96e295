"""A signal to the launcher makes every process leave after the same step, with a checkpoint and the code that asks for another start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from clm_detour.config.load import save_config
from clm_detour.files import read_json_lines
from clm_detour.preemption import REQUEUE
from clm_detour.run_folder import RunFolder
from clm_detour.train.checkpoints import newest_good

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
LAUNCHER = [sys.executable, "-m", "clm_detour.train.launcher", "-n", "2", str(SCRIPT)]
ENDLESS = ["arms={base: [pretrain]}", "phases.pretrain.duration=1Btok", "train.checkpoint_every=500Mtok"]


def test_both_of_two_processes_leave(prepared, tmp_path):
    config = prepared("run", *ENDLESS)
    path, folder = tmp_path / "endless.yaml", RunFolder.of(config).phase("pretrain")
    save_config(config, path)
    words = [*LAUNCHER, str(path), "arm=base", "phase=pretrain"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "log", "w") as log:
        launched = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    while launched.poll() is None and len(read_json_lines(folder.metrics)) < 3:
        time.sleep(0.05)
    launched.send_signal(signal.SIGTERM)
    assert launched.wait(timeout=300) == REQUEUE, (tmp_path / "log").read_text()
    found = newest_good(folder.checkpoints)
    assert found.position.step == read_json_lines(folder.metrics)[-1]["step"] >= 3


def test_a_signal_to_all_processes_at_once_does_not_take_the_data_away_from_the_step(prepared, tmp_path):
    config = prepared("run", *ENDLESS, "train.workers=1")
    path, folder = tmp_path / "endless.yaml", RunFolder.of(config).phase("pretrain")
    save_config(config, path)
    words = [sys.executable, str(SCRIPT), str(path), "arm=base", "phase=pretrain"]
    with open(tmp_path / "log", "w") as log:
        started = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    while started.poll() is None and len(read_json_lines(folder.metrics)) < 3:
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGTERM)
    assert started.wait(timeout=60) == REQUEUE, (tmp_path / "log").read_text()
    found = newest_good(folder.checkpoints)
    assert found.position.step == read_json_lines(folder.metrics)[-1]["step"] >= 3

"""SIGTERM makes all processes exit after the same step, with a checkpoint; Ctrl-C makes them exit at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from clm_detour.config.loading import save_config
from clm_detour.recipe.recipe import Recipe
from clm_detour.train.checkpoints import newest_undamaged
from clm_detour.train.phase import train_phase
from clm_detour.utils.files import HALF_WRITTEN, read_json_lines
from clm_detour.utils.signals import REQUEUE
from commands import Command

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
LAUNCHER = [sys.executable, "-m", "clm_detour.train.launcher", "-n", "2", str(SCRIPT)]
ENDLESS = ["arms={base: [pretrain]}", "phases.pretrain.duration=1Btok", "train.checkpoint_every=500Mtok"]


def test_both_of_two_processes_leave(prepared, tmp_path):
    config = prepared("run", *ENDLESS)
    path, folder = tmp_path / "endless.yaml", Recipe(config).folder.phase("pretrain")
    save_config(config, path)
    words = [*LAUNCHER, str(path), "arm=base", "phase=pretrain"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "log", "w") as log:
        launched = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    while launched.poll() is None and len(read_json_lines(folder.metrics)) < 3:
        time.sleep(0.05)
    launched.send_signal(signal.SIGTERM)
    assert launched.wait(timeout=300) == REQUEUE, (tmp_path / "log").read_text()
    found = newest_undamaged(folder.checkpoints)
    assert found.position.step == read_json_lines(folder.metrics)[-1]["step"] >= 3


def test_a_signal_to_all_processes_at_once_does_not_take_the_data_away_from_the_step(prepared, tmp_path):
    config = prepared("run", *ENDLESS, "train.workers=1")
    path, folder = tmp_path / "endless.yaml", Recipe(config).folder.phase("pretrain")
    save_config(config, path)
    words = [sys.executable, str(SCRIPT), str(path), "arm=base", "phase=pretrain"]
    with open(tmp_path / "log", "w") as log:
        started = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    while started.poll() is None and len(read_json_lines(folder.metrics)) < 3:
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGTERM)
    assert started.wait(timeout=300) == REQUEUE, (tmp_path / "log").read_text()
    found = newest_undamaged(folder.checkpoints)
    assert found.position.step == read_json_lines(folder.metrics)[-1]["step"] >= 3


def test_a_request_to_all_processes_of_a_job_leaves_the_workers_of_the_compiler_alive(prepared, tmp_path):
    config = prepared("run", *ENDLESS, "train.compile=true")
    path, folder = tmp_path / "endless.yaml", Recipe(config).folder.phase("pretrain")
    save_config(config, path)
    words = [sys.executable, str(SCRIPT), str(path), "arm=base", "phase=pretrain"]
    training = Command(words, tmp_path / "log", TORCHINDUCTOR_COMPILE_THREADS="2")
    training.wait_until(lambda: len(read_json_lines(folder.metrics)) >= 3)
    trainer = psutil.Process(training.process.pid)
    workers = [each for each in trainer.children(recursive=True) if "compile_worker" in str(each.cmdline())]
    assert workers
    trainer.suspend()  # at its end it would end the workers itself
    for worker in workers:
        worker.send_signal(signal.SIGUSR1)
    time.sleep(1)
    ended = [worker for worker in workers if worker.status() == psutil.STATUS_ZOMBIE]
    trainer.send_signal(signal.SIGUSR1)
    trainer.resume()
    assert not ended
    assert training.process.wait(timeout=300) == REQUEUE, training.said()
    assert newest_undamaged(folder.checkpoints).position.step >= 3


def test_ctrl_c_in_a_step_with_a_loader_process_is_one_sentence_and_the_same_command_goes_on_to_the_same_bits(
    prepared, tmp_path
):
    words = ["arms={base: [pretrain]}", "phases.pretrain.duration=60ktok", "train.workers=1"]
    config, quiet = prepared("run", *words), prepared("quiet", *words)
    path, folder = tmp_path / "finite.yaml", Recipe(config).folder.phase("pretrain")
    save_config(config, path)
    command = [sys.executable, "-c", "from clm_detour.__main__ import main; main()", "train"]
    training = Command([*command, str(path), "arm=base", "phase=pretrain"], tmp_path / "log")
    training.wait_until(lambda: newest_undamaged(folder.checkpoints) is not None)
    training.assert_leaves_at_ctrl_c()
    assert not list(folder.root.rglob(HALF_WRITTEN))
    assert not folder.record.exists()
    for each in (config, quiet):
        train_phase(Recipe(each), Recipe(each).phase("base", "pretrain"))
    bits = [Recipe(each).folder.phase("pretrain").model / "model.safetensors" for each in (config, quiet)]
    assert bits[0].read_bytes() == bits[1].read_bytes()


RUN_ON_TWO = """
import sys
from clm_detour.utils.errors import exit_on_user_error
from clm_detour.utils.signals import requeue_on_signals
from clm_detour.train import launch

launch.torch.cuda.device_count = lambda: 2
with exit_on_user_error(), requeue_on_signals():
    from clm_detour.config import load_config
    from clm_detour.run.pipeline import run_recipe

    run_recipe(load_config(sys.argv[1], sys.argv[2:]))
"""


def test_ctrl_c_while_a_whole_recipe_trains_on_two_processes_is_one_sentence(prepared, tmp_path):
    config = prepared("run", *ENDLESS, "train.workers=1")
    path, folder = tmp_path / "endless.yaml", Recipe(config).folder.phase("pretrain")
    save_config(config, path)
    running = Command([sys.executable, "-c", RUN_ON_TWO, str(path)], tmp_path / "log")
    running.wait_until(lambda: len(read_json_lines(folder.metrics)) >= 3)
    running.assert_leaves_at_ctrl_c()
    assert not list(folder.root.rglob(HALF_WRITTEN))

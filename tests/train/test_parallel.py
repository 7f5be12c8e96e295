"""Micro-batches, processes and sharding change the weights by rounding only."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from composer.core import State
from composer.loggers import Logger
from safetensors.torch import load_file

from clm_detour.config import load_config
from clm_detour.config.schema import Config
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.run_folder import PhaseFolder
from clm_detour.run.pipeline import prepare_data
from clm_detour.train import parallel, phase
from clm_detour.train.callbacks.metrics import Metrics
from clm_detour.train.checkpoints import sealed
from clm_detour.train.launch import launch_processes
from clm_detour.train.phase import train_phase
from clm_detour.utils.locks import exclusive

pytestmark = pytest.mark.slow

COMPOSER = [sys.executable, "-m", "composer.cli.launcher", "-n"]
FIFTY_STEPS = [
    "arms={twin: [mlm, decay]}",
    "phases.mlm={mask_rate: 0.3, duration: 25600tok, mixture: domain}",
    "train.workers=0",
    "train.export_at=[12800tok, 20ktok]",
    "train.checkpoint_every=12800tok",
    "train.evaluate_every=12800tok",
    "train.ema_half_life=3ktok",
]


@pytest.fixture(scope="module")
def trained(tiny_recipe, tmp_path_factory):
    """A function from overrides and a number of processes to the folder of a phase of fifty steps."""
    done: dict[tuple, Config] = {}

    def train(processes: int, *overrides: str) -> Config:
        key = (processes, *overrides)
        if key not in done:
            path = tiny_recipe(tmp_path_factory.mktemp("parallel") / "run")
            config = load_config(path, [*FIFTY_STEPS, *overrides])
            prepare_data(config)
            run = Recipe(config).phase("twin", "mlm")
            assert run.steps == 50
            if processes == 1:
                train_phase(Recipe(config), run)
            elif "train.parallel=fsdp" in overrides:
                stop_half_way(config, run)  # alone; sharded from there on
                launch_processes(Recipe(config), run, processes)  # as `clm-detour run` does on several GPUs
            else:
                words = [str(path), "arm=twin", "phase=mlm", *FIFTY_STEPS, *overrides]
                command = [*COMPOSER, str(processes), "-m", "clm_detour.train", *words]
                subprocess.run(command, check=True, timeout=300)
            done[key] = config
        return done[key]

    return train


def stop_half_way(config: Config, run: PhaseRun) -> None:
    """Train alone to a checkpoint after 25 steps and a little further."""

    def stop(self: Metrics, state: State, logger: Logger) -> None:
        if state.timestamp.batch.value == 27:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metrics, "batch_checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            train_phase(Recipe(config), run)
    assert [path.name for path in sealed(folder(config).checkpoints)] == ["step-00000025"]


def folder(config: Config, phase: str = "mlm") -> PhaseFolder:
    return Recipe(config).folder.phase(phase)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


HOW = {
    "micro-batches of three": (1, "train.micro_rows=3"),
    "micro-batches of one": (1, "train.micro_rows=1"),
    "two processes, micro-batches of three": (2, "train.micro_rows=3"),
    "two processes, sharded, from a checkpoint of one": (2, "train.parallel=fsdp", "train.micro_rows=2"),
}


def test_the_rows_of_a_step_have_uneven_numbers_of_masked_tokens(trained):
    config = trained(1)
    stream = Recipe(config).stream(Recipe(config).phase("twin", "mlm"))
    masked = [(stream.example(row).labels != -100).sum() for row in range(8)]
    assert max(masked) > 1.3 * min(masked)


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_fifty_steps_end_with_the_same_weights_and_moments(trained, how):
    one, other = folder(trained(1)), folder(trained(*how))
    for mine, theirs in (
        (one.model / "model.safetensors", other.model / "model.safetensors"),
        (one.moments, other.moments),
        (one.ema / "model.safetensors", other.ema / "model.safetensors"),
        (
            one.exports / "tokens-20000" / "model.safetensors",
            other.exports / "tokens-20000" / "model.safetensors",
        ),
    ):
        expected, found = tensors(mine), tensors(theirs)
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            distance = (found[name] - tensor).norm() / tensor.norm().clamp_min(1e-12)
            assert distance < 2e-4, (name, distance)


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_every_logged_loss_and_norm_is_the_same(trained, how):
    for name in ("metrics.jsonl", "held_out.jsonl"):
        one, other = (
            [json.loads(line) for line in (folder(config).root / name).read_text().splitlines()]
            for config in (trained(1), trained(*how))
        )
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert mine["step"] == theirs["step"]
            if name == "metrics.jsonl":
                assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
                assert theirs["gradient_norm"] == pytest.approx(mine["gradient_norm"], rel=1e-3)
                assert theirs["learning_rate"] == mine["learning_rate"]
            else:
                assert theirs["mlm"]["loss"] == pytest.approx(mine["mlm"]["loss"], rel=1e-4)
                assert theirs["clm"]["loss"] == pytest.approx(mine["clm"]["loss"], rel=1e-4)


def test_only_the_first_process_copies_whole_tensors_from_its_device(monkeypatch, tmp_path):
    tensors = {"exp_avg/bias": torch.empty(3, device="meta")}  # cannot be copied
    monkeypatch.setattr(parallel, "is_main_process", lambda: False)
    parallel.save_gathered(tensors, tmp_path / "moments")
    assert not list(tmp_path.iterdir())


DECIDING = """
import os
import sys
import time
from pathlib import Path

from clm_detour.utils.errors import UserError, exit_on_user_error
from clm_detour.utils.locks import exclusive
from clm_detour.train import parallel
from clm_detour.train.parallel import run_on_main_process, is_main_process
from torch.distributed.tensor import Shard, distribute_tensor

parallel.TIMEOUT = 6.0
save_file = parallel.save_file
folder = Path(sys.argv[1])

def decide():
    with exclusive(folder, "A test works"):
        return is_main_process()

def save_slowly(tensors, path):
    time.sleep(9)
    save_file(tensors, path)

def refuse():
    raise UserError("Nobody can go on.")

with exit_on_user_error():
    (folder / f"loaded{os.environ['RANK']}").touch()
    while len(list(folder.glob("loaded*"))) < 2:  # the time to load does not count
        time.sleep(0.05)
    parallel.start_processes()
    agreed = run_on_main_process(decide)
    (folder / f"agreed{parallel.dist.get_global_rank()}").write_text(str(agreed))
    parallel.save_file = save_slowly
    shards = distribute_tensor(parallel.torch.arange(4.0), parallel.make_mesh(False)["shard"], [Shard(0)])
    for name in ("first", "second"):  # the others may not be in the second's collectives too early
        parallel.save_gathered({"weights": shards}, folder / name)
    try:
        run_on_main_process(refuse)
    except UserError as error:
        (folder / f"refused{parallel.dist.get_global_rank()}").write_text(str(error))
        raise
"""


def test_all_do_what_the_first_decides_however_long_it_takes_and_leave_with_its_error(tmp_path):
    script, folder = tmp_path / "deciding.py", tmp_path / "folder"
    script.write_text(DECIDING)
    words = [sys.executable, "-m", "clm_detour.train.launcher", "-n", "2", str(script), str(folder)]
    with exclusive(folder, "Another test works"):
        launched = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = ""
        while "A test works" not in said and launched.poll() is None:
            said += launched.stdout.readline()
        time.sleep(12)  # twice the time limit of a step
    said += launched.communicate(timeout=300)[0]
    assert launched.returncode == 2, said
    for name in ("first", "second"):
        assert load_file(folder / name)["weights"].tolist() == [0, 1, 2, 3]
    for rank in "01":
        assert (folder / f"agreed{rank}").read_text() == "True", said
        assert (folder / f"refused{rank}").read_text() == "Nobody can go on."


def test_a_phase_is_finished_for_all_or_for_none(monkeypatch, prepared):
    config = prepared("run")
    run = Recipe(config).phase("base", "pretrain")
    told = [None, True]  # the lock is held; the phase is finished
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(parallel.dist, "get_global_rank", lambda: 1)
    monkeypatch.setattr(phase, "start_processes", lambda: None)
    monkeypatch.setattr(parallel, "broadcast", lambda value: told.pop(0))
    assert not train_phase(Recipe(config), run)
    assert not told

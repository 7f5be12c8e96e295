"""A command that launches processes is refused where a launcher started it several times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from clm_detour.config.loading import save_config
from clm_detour.recipe.recipe import Recipe
from clm_detour.train.launch import launch_bench, world_size
from clm_detour.train.main import train
from clm_detour.train.nested import check_started_once
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import UserError

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
TORCHRUN = {"TORCHELASTIC_RUN_ID": "7", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
COMPOSER = {"RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4", "NODE_RANK": "0"}


@pytest.fixture
def variables(monkeypatch):
    """A function that sets variables of a launcher, and no others."""

    def arrange(found: dict[str, str]) -> None:
        for name in [*os.environ]:
            if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in {*TORCHRUN, *COMPOSER, "WORLD_SIZE"}:
                monkeypatch.delenv(name)
        for name, value in found.items():
            monkeypatch.setenv(name, value)

    return arrange


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        ({**TORCHRUN, "WORLD_SIZE": "4"}, "torchrun --nproc-per-node 4 -m clm_detour.train CONFIG arm=ARM"),
        ({**TORCHRUN, "WORLD_SIZE": "8"}, "torchrun has started 4 of it"),
        ({**COMPOSER, "WORLD_SIZE": "4"}, "composer -n 4 -m clm_detour.train CONFIG arm=ARM phase=PHASE"),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_LOCALID": "0"}, "srun --ntasks-per-node=1"),
        ({"SLURM_STEP_TASKS_PER_NODE": "1,2"}, "srun starts 2 of it on each"),
        ({"SLURM_LOCALID": "3"}, "srun starts 4 of it on each"),
    ],
)
def test_run_and_bench_are_refused_in_one_of_several_processes(variables, found, remedy):
    variables(found)
    with pytest.raises(UserError) as refused:
        check_started_once("clm-detour run")
    assert remedy in str(refused.value)
    with pytest.raises(UserError):
        launch_bench("no.yaml", [], None)


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"WORLD_SIZE": "8", "NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"},  # several machines
        {"SLURM_NTASKS_PER_NODE": "4", "SLURM_LOCALID": "0"},  # a shell of salloc or the batch script
        {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_LOCALID": "0", "SLURM_STEP_ID": "0"},
        {**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "1"},
    ],
)
def test_a_command_that_runs_once_on_a_machine_may_launch(variables, found):
    variables(found)
    check_started_once("clm-detour run")
    assert world_size(1) == int(found.get("WORLD_SIZE", 1))


def test_a_phase_is_not_trained_by_tasks_that_do_not_know_of_each_other(variables):
    variables({"SLURM_STEP_TASKS_PER_NODE": "4"})
    with pytest.raises(UserError, match=r"torchrun --nproc-per-node 4 -m clm_detour\.train"):
        train("no.yaml", ["arm=base", "phase=pretrain"])


def test_the_refusal_is_one_sentence_and_exit_code_2(tiny_recipe, tmp_path):
    path = tiny_recipe(tmp_path / "run")
    words = [sys.executable, "-m", "clm_detour", "run", str(path)]
    environment = {**os.environ, **TORCHRUN, "WORLD_SIZE": "4"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: `clm-detour run` starts the processes of this machine itself")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("started", [[str(SCRIPT)], ["-m", "clm_detour.train"]], ids=["script", "module"])
def test_torchrun_trains_a_phase_to_the_weights_of_one_process(prepared, tmp_path, started):
    words = ["arms={base: [pretrain]}", "phases.pretrain.duration=3ktok"]
    one, two = prepared("one", *words), prepared("two", *words)
    path = tmp_path / "two.yaml"
    save_config(two, path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {name: value for name, value in os.environ.items() if name != "NODE_RANK"}
    subprocess.run(
        [*torchrun, *started, str(path), "arm=base", "phase=pretrain"],
        env={**environment, "OMP_NUM_THREADS": "1"}, timeout=300, check=True,
    )  # fmt: skip
    train_phase(Recipe(one), Recipe(one).phase("base", "pretrain"))
    mine, theirs = (Recipe(config).folder.phase("pretrain") for config in (one, two))
    assert json.loads(theirs.record.read_text())["world_size"] == 2
    expected = load_file(mine.model / "model.safetensors")
    for name, tensor in load_file(theirs.model / "model.safetensors").items():
        assert (tensor - expected[name]).norm() <= 2e-4 * expected[name].norm(), name

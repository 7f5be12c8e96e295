"""The micro-batch that `train.micro_rows: auto` takes, by trial and by the recipe, and the end when memory runs out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clm_detour.config import load_config
from clm_detour.plan import memory
from clm_detour.recipe.recipe import Recipe
from clm_detour.run.pipeline import prepare_data
from clm_detour.train import micro_rows, phase
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.micro_rows import choose_micro_rows, describe, fits_everywhere
from clm_detour.train.out_of_memory import is_out_of_memory
from clm_detour.train.phase import make_network, train_phase
from clm_detour.train.setup import Setup
from clm_detour.utils.errors import UserError

BIGGEST = 4  # rows that a rank of these tests holds


def fail_above(most: int, where: str, error: Exception):
    """A forward of PretrainingModel that lacks memory for more than `most` rows, there or in its backward."""
    forward = PretrainingModel.forward

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise error

    def run(self, batch):
        output = forward(self, batch)
        if len(batch["input_ids"]) > most:
            if where == "forward":
                raise error
            output.loss = Fails.apply(output.loss)
        return output

    return run


@pytest.fixture
def setup(prepared):
    def make(*overrides: str) -> Setup:
        recipe = Recipe(prepared("run", *overrides))
        return Setup(recipe, recipe.phase("base", "pretrain"))

    return make


def model_of(setup: Setup) -> PretrainingModel:
    return PretrainingModel(make_network(setup), setup.run.objective, bf16=False)


@pytest.fixture
def limited(monkeypatch):
    """Memory can run out, as on a GPU."""
    monkeypatch.setattr(micro_rows, "memory_can_run_out", lambda: True)


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("NCCL error: unhandled cuda error. Last error: Cuda failure 2 'out of memory'"),
    ],
    ids=["torch", "cuBLAS", "NCCL"],
)
def test_the_largest_size_that_fits_is_found_and_kept(setup, limited, monkeypatch, where, error):
    here = setup()
    model, tried = model_of(here), []
    monkeypatch.setattr(PretrainingModel, "forward", fail_above(BIGGEST, where, error))
    fits = micro_rows.fits_everywhere
    monkeypatch.setattr(
        micro_rows, "fits_everywhere", lambda *args: tried.append(args[2]) or fits(*args)
    )
    assert choose_micro_rows(here, model).rows == 4
    assert tried == [8, 4]
    again = choose_micro_rows(here, model)
    assert (again.rows, tried) == (4, [8, 4]), "the record of the phase is taken"
    assert "when this phase was started" in again.reason


def test_on_other_hardware_the_size_is_searched_again(setup, limited, monkeypatch):
    here = setup()
    assert choose_micro_rows(here, model_of(here)).rows == 8
    monkeypatch.setattr(
        micro_rows, "describe", lambda setup: replace(describe(setup), gpus=[("Smaller", 10**9)])
    )
    monkeypatch.setattr(
        PretrainingModel, "forward", fail_above(2, "forward", torch.OutOfMemoryError("CUDA out of memory."))
    )
    assert choose_micro_rows(here, model_of(here)).rows == 2
    assert json.loads(here.folder.micro_rows.read_text())["gpus"] == [["Smaller", 10**9]]


@pytest.mark.parametrize("fits", [True, False])
def test_a_trial_leaves_no_trace(setup, limited, monkeypatch, fits):
    here = setup("model.config.mlp_dropout=0.1")
    model = model_of(here).eval()
    if not fits:
        error = torch.OutOfMemoryError("CUDA out of memory.")
        monkeypatch.setattr(PretrainingModel, "forward", fail_above(0, "backward", error))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    assert fits_everywhere(here, model, 8) == fits
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(not parameter._post_accumulate_grad_hooks for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_trial_holds_what_a_step_holds(setup, limited, monkeypatch):
    here = setup("train.ema_half_life=2ktok")
    model, held = model_of(here), []
    empty = torch.empty
    monkeypatch.setattr(
        micro_rows.torch, "empty", lambda size, **rest: held.append(size) or empty(0, **rest)
    )
    with_gradients = []
    forward = PretrainingModel.forward

    def run(self, batch):
        with_gradients.append(all(parameter.grad is not None for parameter in self.parameters()))
        assert batch["predicted"] == [20] * 8  # 30 % of 64, rounded up
        assert batch["document_lengths"] == [[64]] * 8
        return forward(self, batch)

    monkeypatch.setattr(PretrainingModel, "forward", run)
    assert fits_everywhere(here, model, 8)
    size = sum(parameter.numel() for parameter in model.parameters())
    assert held == [micro_rows.RESERVE + size * (memory.MOMENTS + memory.WEIGHT)]
    assert with_gradients == [True]


def test_one_row_that_does_not_fit_is_one_sentence_with_the_remedies(setup, limited, monkeypatch):
    here = setup()
    error = torch.OutOfMemoryError("CUDA out of memory.")
    monkeypatch.setattr(PretrainingModel, "forward", fail_above(0, "backward", error))
    with pytest.raises(UserError, match=r"one row of 64 tokens; set train\.activation_checkpointing=true, or "):
        choose_micro_rows(here, model_of(here))
    assert not here.folder.micro_rows.exists()


def test_another_error_is_not_taken_for_a_lack_of_memory(setup, limited, monkeypatch):
    here = setup()
    error = RuntimeError("DataLoader worker (pid 7) ran out of shared memory")
    assert not is_out_of_memory(error)
    monkeypatch.setattr(PretrainingModel, "forward", fail_above(0, "forward", error))
    with pytest.raises(RuntimeError, match="DataLoader"):
        choose_micro_rows(here, model_of(here))


def test_sizes_that_cannot_fit_are_not_tried(setup, limited, monkeypatch):
    here = setup()
    model, tried = model_of(here), []
    config = model.network.config
    most = memory.activations(here.config.train, here.run.phase, config, 4 * here.run.row_tokens)
    gpu = ("Small", int(most / micro_rows.HOPELESS))
    monkeypatch.setattr(micro_rows, "describe", lambda setup: replace(describe(setup), gpus=[gpu]))
    monkeypatch.setattr(micro_rows, "fits_everywhere", lambda *args: tried.append(args[2]) or args[2] == 2)
    assert choose_micro_rows(here, model).rows == 2
    assert tried == [4, 2]


@pytest.mark.parametrize(("deterministic", "gpu"), [(False, False), (True, True)])
def test_on_a_cpu_and_under_deterministic_it_follows_from_the_recipe(
    setup, monkeypatch, deterministic, gpu
):
    here = setup(f"train.deterministic={str(deterministic).lower()}")
    monkeypatch.setattr(micro_rows, "memory_can_run_out", lambda: gpu)
    monkeypatch.setattr(micro_rows, "fits_everywhere", lambda *_: pytest.fail("a trial was made"))
    model = model_of(here)
    assert choose_micro_rows(here, model).rows == 8
    config, run = model.network.config, here.run
    quarter = memory.activations(here.config.train, run.phase, config, 2 * run.row_tokens)
    for limit, expected in ((quarter, 2), (quarter - 1, 1), (0, 1)):
        monkeypatch.setattr(memory, "BY_RECIPE", limit)
        assert choose_micro_rows(here, model).rows == expected


@pytest.mark.parametrize(("setting", "rows"), [("3", 3), ("100", 8), ("null", 8)])
def test_a_size_that_is_set_is_taken(setup, limited, monkeypatch, setting, rows):
    here = setup(f"train.micro_rows={setting}")
    monkeypatch.setattr(micro_rows, "fits_everywhere", lambda *_: pytest.fail("a trial was made"))
    assert choose_micro_rows(here, model_of(here)).rows == rows


def test_memory_that_runs_out_in_training_names_the_setting_and_the_next_start_takes_fewer_rows(
    prepared, limited, monkeypatch
):
    config = prepared("run", "train.checkpoint_every=512tok")
    run = Recipe(config).phase("base", "pretrain")
    steps = []

    def lacking(self, outputs, batch):
        steps.append(len(batch["input_ids"]))
        if len(steps) == 4:  # the first is the trial
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return outputs.loss

    with monkeypatch.context() as patch:
        patch.setattr(PretrainingModel, "loss", lacking)
        with pytest.raises(UserError, match=r"with 8 rows .* resumes .* with train\.micro_rows=4\."):
            train_phase(Recipe(config), run)
    seen = []
    make_trainer = phase.make_trainer
    monkeypatch.setattr(phase, "make_trainer", lambda *args: seen.append(args[-1]) or make_trainer(*args))
    assert train_phase(Recipe(config), run)
    assert seen == [4]


def test_memory_that_runs_out_with_a_size_that_is_set_names_a_smaller_one(prepared, monkeypatch):
    config = prepared("run", "train.micro_rows=4")

    def lacking(self, outputs, batch):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(PretrainingModel, "loss", lacking)
    with pytest.raises(UserError, match=r"with 4 rows in a forward pass; set train\.micro_rows=2"):
        train_phase(Recipe(config), Recipe(config).phase("base", "pretrain"))


RANKS = """
import os
import sys
import torch
from clm_detour.train import micro_rows
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.main import main

forward = PretrainingModel.forward
where, failing, most, calls = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1)), int(sys.argv.pop(1))
called = 0

class Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise torch.OutOfMemoryError("CUDA out of memory.")

def short_of_memory(self, batch):
    global called
    called += 1
    output = forward(self, batch)
    if os.environ["RANK"] in failing and (len(batch["input_ids"]) > most or called == calls):
        if where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        output.loss = Fails.apply(output.loss)
    return output

PretrainingModel.forward = short_of_memory
micro_rows.memory_can_run_out = lambda: True
main()
"""


@pytest.fixture(scope="module")
def two_ranks(tiny_recipe, tmp_path_factory):
    """A function that trains a phase on two ranks, of which some run out of memory; the run folder and the output."""
    root = tmp_path_factory.mktemp("ranks")
    (root / "ranks.py").write_text(RANKS)
    words = ["train.workers=0", "phases.pretrain.duration=3072tok", f"data.dir={root}/data"]

    def train(name: str, where: str, failing: str, most: int, calls: int, *overrides: str):
        path = tiny_recipe(root / name)
        prepare_data(load_config(path, words))
        injected = [where, failing, str(most), str(calls)]
        launched = [sys.executable, "-m", "clm_detour.train.launcher", "-n", "2", str(root / "ranks.py"), *injected]
        command = [*launched, str(path), "arm=base", "phase=pretrain", *words, *overrides]
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        said = " ".join((done.stdout + done.stderr).split())
        return root / name / "phases" / "pretrain", done.returncode, said, time.monotonic() - started

    return train


@pytest.fixture(scope="module")
def with_two_rows(two_ranks) -> dict[str, torch.Tensor]:
    """The weights of two ranks that were told to take two rows."""
    folder, code, said, _ = two_ranks("told", "nowhere", "", 8, 0, "train.micro_rows=2")
    assert code == 0, said
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("failing", ["1", "01"], ids=["on one rank", "on both"])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_ranks_agree_and_train_as_if_they_had_been_told(two_ranks, with_two_rows, where, failing, parallel):
    folder, code, said, _ = two_ranks(
        f"{where}{failing}{parallel}", where, failing, 2, 0, f"train.parallel={parallel}"
    )
    assert code == 0, said
    assert "micro-batches of 2 rows (found by trial)" in said
    found = load_file(folder / "model" / "model.safetensors")
    for name, tensor in with_two_rows.items():
        if parallel == "ddp":
            assert torch.equal(found[name], tensor), name
        else:
            assert (found[name] - tensor).norm() <= 2e-4 * tensor.norm(), name


@pytest.mark.slow
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_rank_that_runs_out_of_memory_in_training_ends_all_with_a_sentence(two_ranks, where):
    folder, code, said, seconds = two_ranks(f"later-{where}", where, "1", 8, 4)
    assert code == 2, said
    assert "Error: Memory ran out in training with 4 rows in a forward pass" in said
    assert "train.micro_rows=2" in said
    assert "Traceback" not in said
    assert json.loads((folder / "micro_rows.json").read_text())["rows"] == 2

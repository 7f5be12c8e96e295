"""`train.micro_rows: auto` fits or follows from the recipe, and no rank waits for one without memory."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from clm_detour.config import load_config
from clm_detour.model import backbone, compiling
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
    monkeypatch.setattr(micro_rows, "fits_everywhere", lambda *args: tried.append(args[2]) or fits(*args))
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
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_trial_holds_what_a_step_holds(setup, limited, monkeypatch):
    here = setup("train.ema_half_life=2ktok")
    model, held = model_of(here), []
    empty = torch.empty
    monkeypatch.setattr(micro_rows.torch, "empty", lambda size, **rest: held.append(size) or empty(0, **rest))
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
    with pytest.raises(
        UserError, match=r"one row of 64 tokens; set train\.activation_checkpointing=true, or "
    ):
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
def test_on_a_cpu_and_under_deterministic_it_follows_from_the_recipe(setup, monkeypatch, deterministic, gpu):
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


def test_a_phase_that_was_started_with_the_old_defaults_resumes_to_the_same_bits(
    prepared, stop_after, monkeypatch
):
    old = ["train.micro_rows=null", "train.compile=false", "train.checkpoint_every=1ktok"]
    weights = []
    for name, then in (("through", old), ("resumed", old[2:])):
        config = prepared(name, *old)
        run = Recipe(config).phase("base", "pretrain")
        if name == "resumed":
            with monkeypatch.context():
                stop_after(5)
                with pytest.raises(KeyboardInterrupt):
                    train_phase(Recipe(config), run)
            monkeypatch.undo()
        recipe = Recipe(prepared(name, *then))
        assert train_phase(recipe, recipe.phase("base", "pretrain"))
        weights.append((recipe.folder.phase("pretrain").model / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.fixture
def traced_only(monkeypatch):
    """Layers are traced for each shape, as ever, but no seconds are spent on making code of them."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr(backbone, "cannot_compile", lambda device: None)
    compiling.compiled.cache_clear()
    torch._dynamo.reset()
    yield
    compiling.compiled.cache_clear()
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("growing", [False, True])
def test_a_size_that_does_not_divide_costs_no_other_compilation(prepared, traced_only, monkeypatch, growing):
    words = ["phases.pretrain.duration=5120tok", "arms={base: [pretrain]}"]
    if growing:
        words.append("phases.pretrain.batch_warmup={rows: 2, duration: 2ktok}")
    found, graphs = [], []
    forward = PretrainingModel.forward

    def run(self, batch):
        assert len(batch["input_ids"]) == 3
        output = forward(self, batch)
        graphs.append(counters["stats"]["unique_graphs"])
        return output

    for name, compiled in (("eager", False), ("compiled", True)):
        config = prepared(name, *words, "train.micro_rows=3", f"train.compile={str(compiled).lower()}")
        pretrain = Recipe(config).phase("base", "pretrain")
        assert pretrain.steps >= 10
        with monkeypatch.context() as patch:
            if compiled:
                patch.setattr(PretrainingModel, "forward", run)
            train_phase(Recipe(config), pretrain)
        found.append(load_file(Path(config.run_dir, "phases", "pretrain", "model", "model.safetensors")))
    assert len(graphs) >= 30
    assert len(set(graphs)) == 1, "something was compiled after the first micro-batch"
    for name, tensor in found[0].items():
        assert (found[1][name] - tensor).norm() <= 2e-4 * tensor.norm(), name


RANKS = """
import json
import sys
import torch
from clm_detour.config import load_config
from clm_detour.recipe.recipe import Recipe
from clm_detour.train import micro_rows, phase
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.main import delay_errors
from clm_detour.train.parallel import dist, start_processes
from clm_detour.utils.errors import exit_on_user_error

forward = PretrainingModel.forward
case, calls = {}, 0

class Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise torch.OutOfMemoryError("CUDA out of memory.")

def short_of_memory(self, batch):
    global calls
    calls += 1
    output = forward(self, batch)
    fails = len(batch["input_ids"]) > case["most"] or calls == case["call"]
    if fails and dist.get_global_rank() in case["ranks"]:
        if case["where"] == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        output.loss = Fails.apply(output.loss)
    return output

PretrainingModel.forward = short_of_memory
micro_rows.memory_can_run_out = lambda: True
with exit_on_user_error(), delay_errors():
    for case in json.loads(sys.argv[1]):
        calls = 0
        recipe = Recipe(load_config(case["recipe"], case["words"]))
        phase.train_phase(recipe, recipe.phase("base", "pretrain"))
"""


@pytest.fixture(scope="module")
def two_ranks(tiny_recipe, tmp_path_factory):
    """A function from cases to their phase folders, which two ranks train one after the other."""
    root = tmp_path_factory.mktemp("ranks")
    (root / "ranks.py").write_text(RANKS)
    always = ["train.workers=0", f"data.dir={root}/data"]
    always += ["phases.pretrain.duration=1536tok", "phases.pretrain.schedule.warmup=0tok"]

    def train(cases: dict[str, dict]) -> tuple[dict[str, Path], int, str]:
        given = []
        for name, case in cases.items():
            path, words = tiny_recipe(root / name), [*always, *case.pop("words", [])]
            prepare_data(load_config(path, words))
            defaults = {"most": 8, "call": 0, "ranks": [], "where": "nowhere"}
            given.append({**defaults, **case, "recipe": str(path), "words": words})
        launcher = [sys.executable, "-m", "clm_detour.train.launcher", "-n", "2"]
        command = [*launcher, str(root / "ranks.py"), json.dumps(given)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
        folders = {name: root / name / "phases" / "pretrain" for name in cases}
        return folders, done.returncode, " ".join((done.stdout + done.stderr).split())

    return train


@pytest.mark.slow
def test_ranks_agree_and_train_as_if_they_had_been_told(two_ranks):
    cases = {"told": {"words": ["train.micro_rows=2"]}}
    for where in ("forward", "backward"):
        for ranks in ([1], [0, 1]):
            for parallel in ("ddp", "fsdp"):
                name = f"{parallel}-{where}-{len(ranks)}"
                words = [f"train.parallel={parallel}"]
                cases[name] = {"where": where, "ranks": ranks, "most": 2, "words": words}
    folders, code, said = two_ranks(cases)
    assert code == 0, said
    assert said.count("micro-batches of 2 rows (found by trial)") == 8
    found = {name: load_file(folder / "model" / "model.safetensors") for name, folder in folders.items()}
    for name, weights in found.items():
        for key, expected in found["told"].items():
            if "fsdp" in name:
                assert (weights[key] - expected).norm() <= 2e-4 * expected.norm(), (name, key)
            else:
                assert torch.equal(weights[key], expected), (name, key)


@pytest.mark.slow
def test_a_rank_that_runs_out_of_memory_in_training_ends_all_with_a_sentence(two_ranks):
    # The first call is the trial.
    folders, code, said = two_ranks({"later": {"where": "backward", "ranks": [1], "call": 4}})
    assert code == 2, said
    assert "Error: Memory ran out in training with 4 rows in a forward pass" in said
    assert "train.micro_rows=2" in said
    assert "Traceback" not in said
    assert json.loads((folders["later"] / "micro_rows.json").read_text())["rows"] == 2

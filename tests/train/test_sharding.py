"""Two processes give the weights of one, however they share the network, and communicate once a step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from clm_detour.config import load_config
from clm_detour.config.loading import save_config
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.run_folder import PhaseFolder
from clm_detour.run.pipeline import prepare_data
from clm_detour.train.phase import train_phase

pytestmark = pytest.mark.slow

SIX_STEPS = [
    "arms={twin: [mlm]}",
    "phases.mlm={mask_rate: 0.3, duration: 3072tok, mixture: domain}",
    "train.workers=0",
    "train.checkpoint_every=1536tok",
    "train.evaluate_every=1536tok",
    "train.ema_half_life=1ktok",
]
HOW = {  # settings, and processes of a machine
    "ddp, compiled": (["train.parallel=ddp", "train.compile=true", "train.micro_rows=2"], 2),
    "fsdp, compiled": (["train.parallel=fsdp", "train.compile=true", "train.micro_rows=2"], 2),
    "fsdp, checkpointed": (
        ["train.parallel=fsdp", "train.activation_checkpointing=true", "train.micro_rows=1"],
        2,
    ),
    "fsdp, one micro-batch": (["train.parallel=fsdp"], 2),
    "fsdp, sharded for each micro-batch": (["train.parallel=fsdp", "train.micro_rows=2"], 2),
    "hsdp, two machines": (["train.parallel=hsdp", "train.micro_rows=2"], 1),
    "hsdp, one machine": (["train.parallel=hsdp", "train.micro_rows=2"], 2),
}

TRAIN = """
import json
import os
import sys
from collections import Counter
from pathlib import Path

import torch
from clm_detour.config import load_config
from clm_detour.recipe.recipe import Recipe
from clm_detour.train import parallel
from clm_detour.train.callbacks import gradient_sync
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import exit_on_user_error

calls = Counter()

def count(name):
    function = getattr(torch.distributed, name)

    def counted(*args, **kwargs):
        calls[name] += 1
        return function(*args, **kwargs)

    setattr(torch.distributed, name, counted)

count("all_gather_into_tensor")
count("reduce_scatter_tensor")
with exit_on_user_error():
    for path, local, name in zip(*[iter(sys.argv[1:])] * 3):
        os.environ["LOCAL_WORLD_SIZE"] = local
        if "for each" in name:
            gradient_sync.keeps_whole = parallel.keeps_whole = lambda network, bf16: False
        calls.clear()
        recipe = Recipe(load_config(path, []))
        train_phase(recipe, recipe.phase("twin", "mlm"))
        if parallel.is_main_process():
            Path(path).with_suffix(".json").write_text(json.dumps(calls))
        if "for each" in name:
            parallel.keeps_whole = gradient_sync.keeps_whole = kept
        else:
            kept = parallel.keeps_whole
"""


@pytest.fixture(scope="module")
def trained(tiny_recipe, tmp_path_factory):
    """The folder of a phase trained by one process, and by two in each way, with their communication."""
    root = tmp_path_factory.mktemp("sharding")
    script = root / "train.py"
    script.write_text(TRAIN)
    folders, words = {}, []
    for number, (name, (overrides, local)) in enumerate([("alone", ([], 1)), *HOW.items()]):
        config = load_config(tiny_recipe(root / f"run{number}"), [*SIX_STEPS, *overrides])
        prepare_data(config)
        path = root / f"how{number}.yaml"
        save_config(config, path)
        folders[name] = (Recipe(config).folder.phase("mlm"), path.with_suffix(".json"))
        if name == "alone":
            train_phase(Recipe(config), Recipe(config).phase("twin", "mlm"))
        else:
            words += [str(path), str(local), name]
    launcher = [sys.executable, "-m", "clm_detour.train.launcher", "-n", "2", str(script), *words]
    subprocess.run(launcher, check=True, timeout=1800, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return folders


def assert_same_tensors(one: Path, other: Path) -> None:
    expected, found = load_file(one), load_file(other)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        distance = (found[name] - tensor).norm() / tensor.norm().clamp_min(1e-12)
        assert distance < 2e-4, (name, distance)


@pytest.mark.parametrize("how", HOW)
def test_weights_moments_average_and_losses_are_those_of_one_process(trained, how):
    one, other = trained["alone"][0], trained[how][0]
    assert_same_tensors(one.model / "model.safetensors", other.model / "model.safetensors")
    assert_same_tensors(one.ema / "model.safetensors", other.ema / "model.safetensors")
    assert_same_tensors(one.moments, other.moments)
    for mine, theirs in zip(lines(one), lines(other), strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
        assert theirs["gradient_norm"] == pytest.approx(mine["gradient_norm"], rel=1e-3)
    held_out = [json.loads(each.held_out.read_text().splitlines()[-1]) for each in (one, other)]
    assert held_out[1]["mlm"]["loss"] == pytest.approx(held_out[0]["mlm"]["loss"], rel=1e-4)


def lines(folder: PhaseFolder) -> list[dict[str, float]]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


@pytest.mark.parametrize("how", ["fsdp, one micro-batch", "fsdp, compiled", "hsdp, one machine"])
def test_weights_are_gathered_and_gradients_reduced_once_a_step(trained, how):
    calls, steps, groups = json.loads(trained[how][1].read_text()), 6, 3 + 1  # of layers, and of the rest
    assert calls["reduce_scatter_tensor"] == 1 + steps * groups  # the first measures what the back end does
    assert calls["all_gather_into_tensor"] <= (steps + 3) * groups  # held-out scores are measured three times


def test_every_micro_batch_gathers_and_reduces_where_memory_does_not_allow_it(trained):
    calls = json.loads(trained["fsdp, sharded for each micro-batch"][1].read_text())
    micro_batches, layers = 6 * 2, 3
    assert calls["reduce_scatter_tensor"] == 1 + micro_batches * (layers + 1)
    assert calls["all_gather_into_tensor"] >= micro_batches * 2 * layers  # forward and backward


BF16 = """
import sys

import torch
from clm_detour.model import precision

precision.cpu_multiplies_bf16 = lambda: True
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.train import parallel
from transformers import ModernBertConfig

def outcome(network):
    ids = torch.arange(64).reshape(2, 32) % 90 + 5
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(ids, labels=ids.roll(1, 1), document_lengths=[[32], [20, 12]], predicted=64).loss
    loss.backward()
    return loss.detach(), {name: each.grad for name, each in network.named_parameters()}

def build():
    torch.manual_seed(7)
    config = ModernBertConfig(
        vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
        local_attention=16, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
        attention_bias=True,
    )
    network = ModernBertForPretraining(config, attention_backend="portable").train()
    with torch.no_grad():
        for each in network.parameters():
            each.add_(torch.randn_like(each) * 0.02)  # also norms and biases have many digits
    return network

parallel.start_processes()
loss, gradients = outcome(build())
sharded = build()
parallel.shard(sharded, bf16=True)
sharded_loss, shards = outcome(sharded)
scale = parallel.sharded_gradient_scale()
whole = {name: (each.full_tensor() * scale) for name, each in shards.items()}
assert torch.equal(loss, sharded_loss), (loss, sharded_loss)
assert whole.keys() == gradients.keys()
different = [name for name, each in gradients.items() if not torch.equal(each, whole[name])]
assert not different, different
dtypes = {each.dtype for each in sharded.parameters()}
assert dtypes == {torch.float32}, dtypes
"""


def test_matrices_gathered_in_bf16_give_the_bits_of_autocast(tmp_path):
    script = tmp_path / "bf16.py"
    script.write_text(BF16)
    words = [sys.executable, "-m", "clm_detour.train.launcher", "-n", "2", str(script)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr

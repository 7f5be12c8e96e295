"""Frozen parameters keep their bits, take no optimizer state and no backward pass; a reset head is new."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import ModernBertConfig

from clm_detour.config import load_config
from clm_detour.config.schema import Freeze, Optimizer
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.boundary import reset_head, take_head
from clm_detour.recipe.freezing import freeze, frozen_names
from clm_detour.recipe.recipe import Recipe
from clm_detour.run.pipeline import prepare_data
from clm_detour.train.optim import make_optimizer
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import UserError

FROZEN = [
    "phases.clm.moments=keep",
    "phases.clm.freeze={layers: 0-1, embeddings: true}",
    "phases.decay.reset_head=true",
    "train.checkpoint_every=1ktok",
    "arms={detour: [pretrain, clm, decay]}",
]


@pytest.fixture(scope="module")
def thawed(tiny_recipe, tmp_path_factory):
    """Train a recipe that freezes embeddings and layers 0-1 in phase 2 and resets the head in phase 3."""
    config = load_config(tiny_recipe(tmp_path_factory.mktemp("frozen") / "run"), FROZEN)
    prepare_data(config)
    for run in Recipe(config).arm("detour"):
        train_phase(Recipe(config), run)
    return config


def tensors(config, phase: str, file: str = "model/model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(Recipe(config).folder.phase(phase).root / file)


def is_frozen(name: str) -> bool:
    return name.startswith(("model.layers.0.", "model.layers.1.", "model.embeddings."))


def small(**keys) -> ModernBertForPretraining:
    config = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
              "num_attention_heads": 2, "pad_token_id": 0}  # fmt: skip
    torch.manual_seed(0)
    return ModernBertForPretraining(ModernBertConfig(**{**config, **keys}))


def test_frozen_parameters_do_not_change_by_one_bit_and_the_others_do(thawed):
    before, after = tensors(thawed, "pretrain"), tensors(thawed, "pretrain.clm")
    assert any(map(is_frozen, before))
    for name in before:
        assert torch.equal(before[name], after[name]) == is_frozen(name), name


def test_frozen_parameters_have_no_moments(thawed):
    names = {key.partition("/")[2] for key in tensors(thawed, "pretrain.clm", "optimizer.safetensors")}
    assert names
    assert not any(map(is_frozen, names))


def test_moments_of_what_was_frozen_and_of_a_reset_head_start_anew_and_the_others_go_on(thawed):
    runs = {run.name: run for run in Recipe(thawed).arm("detour")}
    moments = tensors(thawed, "pretrain.clm.decay", "optimizer.safetensors")
    for key, step in moments.items():
        kind, _, name = key.partition("/")
        if kind == "step":
            new = is_frozen(name) or name.startswith(("head.", "decoder."))
            before = 0 if new else runs["pretrain"].steps + runs["clm"].steps
            assert step == before + runs["decay"].steps, name


def test_a_frozen_phase_resumes_to_the_same_bits(thawed, tmp_path, tiny_recipe, monkeypatch):
    from clm_detour.train.callbacks.checkpoint import Checkpoints

    config = load_config(tiny_recipe(tmp_path / "run"), FROZEN)
    shutil.copytree(
        Recipe(thawed).folder.phase("pretrain").root, Recipe(config).folder.phase("pretrain").root
    )
    run = Recipe(config).arm("detour")[1]
    write = Checkpoints.write

    def write_and_die(self, state):
        write(self, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "write", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            train_phase(Recipe(config), run)
    assert train_phase(Recipe(config), run)
    for file in ("model/model.safetensors", "optimizer.safetensors"):
        ours, theirs = tensors(config, run.id, file), tensors(thawed, run.id, file)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.slow
def test_two_processes_freeze_the_same(thawed, tmp_path, tiny_recipe, parallel):
    words = [*FROZEN, f"train.parallel={parallel}"]
    path = tiny_recipe(tmp_path / "run")
    alone, both = Recipe(thawed).folder, Recipe(load_config(path, words)).folder
    shutil.copytree(alone.phase("pretrain").root, both.phase("pretrain").root)
    launcher = [sys.executable, "-m", "clm_detour.train.launcher", "-n", "2", "-m", "clm_detour.train"]
    for phase in ("clm", "decay"):
        command = [*launcher, str(path), *words, "arm=detour", f"phase={phase}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    start = load_file(alone.phase("pretrain").model / "model.safetensors")
    for phase in ("pretrain.clm", "pretrain.clm.decay"):
        one = load_file(alone.phase(phase).model / "model.safetensors")
        two = load_file(both.phase(phase).model / "model.safetensors")
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)
            if phase == "pretrain.clm" and is_frozen(name):
                assert torch.equal(two[name], start[name]), name
    assert (
        load_file(both.phase("pretrain.clm").moments).keys()
        == load_file(alone.phase("pretrain.clm").moments).keys()
    )


@pytest.mark.parametrize(
    ("settings", "lowest"),
    [
        (Freeze(layers="0-1", embeddings=True), 2),
        (Freeze(layers="0-1"), 0),
        (Freeze(layers="1-2", embeddings=True), 0),
    ],
)
def test_no_backward_runs_below_the_lowest_trainable_layer(settings, lowest):
    network = small()
    freeze(settings, network)
    touched = []
    for number, layer in enumerate(network.model.layers):
        layer.mlp.Wo.register_full_backward_hook(lambda *_, number=number: touched.append(number))
    ids = torch.randint(1, 96, (2, 12))
    network.train()(ids, labels=ids).loss.backward()
    assert sorted(touched) == list(range(lowest, 4))
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (name in frozen_names(settings, network)), name


def test_what_is_frozen_is_not_in_the_optimizer():
    network = small()
    freeze(Freeze(layers="0-2", embeddings=True, head=True), network)
    optimizer = make_optimizer(network, Optimizer(), 1e-3)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in held}
    modules = {name.rpartition(".")[0].removeprefix("model.") for name in names}
    assert {name.partition(".attn")[0].partition(".mlp")[0] for name in modules} == {"layers.3", "final_norm"}


def test_tied_decoder_weights_freeze_with_the_embeddings_and_others_with_the_head():
    tied, apart = small(), small(tie_word_embeddings=False)
    assert "decoder.weight" not in frozen_names(Freeze(head=True), tied)
    assert frozen_names(Freeze(head=True), apart) == frozen_names(Freeze(head=True), tied) | {
        "decoder.weight"
    }
    assert frozen_names(Freeze(embeddings=True), tied) == frozen_names(Freeze(embeddings=True), apart)


def test_layers_beyond_the_model_are_refused():
    with pytest.raises(UserError, match=r"2-4 goes beyond the model's 4 layers, which are 0-3"):
        freeze(Freeze(layers="2-4"), small())


@pytest.mark.parametrize("tied", [True, False])
def test_a_reset_head_is_new_and_the_body_and_tied_weights_are_not(tied):
    network = small(tie_word_embeddings=tied)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.data.add_(1.0)
    reset_head(network, seed=3)
    once = network.head.dense.weight.clone()
    for name, parameter in network.named_parameters():
        is_new = name.startswith(("head.", "decoder."))
        assert torch.equal(parameter, before[name] + 1.0) != is_new, name
    assert not network.decoder.bias.any()
    spread = float(before["head.dense.weight"].std())
    assert float(network.head.dense.weight.std()) == pytest.approx(spread, rel=0.2)
    reset_head(network, seed=3)
    assert torch.equal(network.head.dense.weight, once)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_taken_is_that_of_the_other_network_and_the_rest_stays(tied):
    network, other = small(tie_word_embeddings=tied), small(tie_word_embeddings=tied)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in other.parameters():
        parameter.data.add_(1.0)
    take_head(network, other)
    there = dict(other.named_parameters())
    for name, parameter in network.named_parameters():
        taken = name.startswith(("head.", "decoder."))
        assert torch.equal(parameter, there[name] if taken else before[name]), name

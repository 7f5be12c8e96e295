"""The moving average follows its formula, resumes with the same bits, and does not influence training."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from clm_detour.config.schema import Config
from clm_detour.recipe.export import export_arm
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.run_folder import PhaseFolder
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import UserError

STEP = 8 * 64  # tokens
HALF_LIFE = 1500
AVERAGED = f"train.ema_half_life={HALF_LIFE}tok"
STEPS = [*range(STEP, 6000, STEP), 6000]  # a model of each
EVERY_STEP = f"train.export_at=[{','.join(f'{tokens}tok' for tokens in STEPS)}]"
FREEZE = "phases.pretrain.freeze={layers: 1}"


def trained(config: Config) -> PhaseFolder:
    run = Recipe(config).phase("base", "pretrain")
    train_phase(Recipe(config), run)
    return Recipe(config).folder.phase(run.id)


@pytest.fixture
def averaged(prepared) -> PhaseFolder:
    """A phase of twelve steps, each of them exported, with the average."""
    return trained(prepared("averaged", AVERAGED, FREEZE, EVERY_STEP))


def test_it_is_the_formula_over_the_weights_of_all_steps(averaged):
    decay = 2 ** (-STEP / HALF_LIFE)
    weights = [load_file(averaged.exports / f"tokens-{n}" / "model.safetensors") for n in STEPS]
    averages = [load_file(averaged.exports / f"ema-tokens-{n}" / "model.safetensors") for n in STEPS]
    for before, after, last in zip(averages, averages[1:], weights[1:], strict=False):
        for name, average in after.items():
            torch.testing.assert_close(average, decay * before[name] + (1 - decay) * last[name])
    frozen = [name for name in weights[0] if name.startswith("model.layers.1.")]
    assert frozen
    assert all(torch.equal(averages[-1][name], weights[0][name]) for name in frozen)
    trained_name = "model.layers.2.mlp.Wi.weight"
    assert not torch.equal(averages[-1][trained_name], weights[-1][trained_name])


def test_training_does_not_see_it_and_a_stopped_run_goes_on_with_its_bits(prepared, stop_after, monkeypatch):
    plain, whole, stopped = prepared("plain"), prepared("whole", AVERAGED), prepared("stopped", AVERAGED)
    stop_after(10)
    with pytest.raises(KeyboardInterrupt):
        trained(stopped)
    monkeypatch.undo()
    one, other, without = trained(whole), trained(stopped), trained(plain)
    for path in ("ema/model.safetensors", "model/model.safetensors", "optimizer.safetensors"):
        assert (one.root / path).read_bytes() == (other.root / path).read_bytes()
        if not path.startswith("ema"):
            assert (one.root / path).read_bytes() == (without.root / path).read_bytes()


def test_every_export_says_which_weights_it_holds(averaged, prepared, tmp_path):
    exports = {f"exports/tokens-{STEP}": "last", f"exports/ema-tokens-{STEP}": "ema"}
    for name, weights in {**exports, "model": "last", "ema": "ema"}.items():
        assert json.loads((averaged.root / name / "clm_detour.json").read_text())["weights"] == weights
    config = prepared("averaged", AVERAGED, FREEZE, EVERY_STEP)
    export_arm(Recipe(config), "base", tmp_path / "average", ema=True)
    about = json.loads((tmp_path / "average" / "clm_detour.json").read_text())
    assert (about["weights"], about["config"]["train"]["ema_half_life"]) == ("ema", f"{HALF_LIFE}tok")
    exported = load_file(tmp_path / "average" / "model.safetensors")
    kept = load_file(averaged.ema / "model.safetensors")
    assert all(torch.equal(exported[name], tensor) for name, tensor in kept.items())


def test_an_average_that_was_not_kept_is_refused_with_the_remedy(prepared, tmp_path):
    config = prepared("plain")
    trained(config)
    with pytest.raises(UserError, match=r"no moving average .* set train\.ema_half_life before training"):
        export_arm(Recipe(config), "base", tmp_path / "average", ema=True)
    assert not (tmp_path / "average").exists()

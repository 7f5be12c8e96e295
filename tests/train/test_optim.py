"""Our AdamW is Composer's decoupled AdamW, and its moments survive the disk bit for bit."""

from __future__ import annotations

import pytest
import torch
from composer.optim import DecoupledAdamW
from torch import nn

from clm_detour.config.schema import Optimizer
from clm_detour.model.weights import read_tensors
from clm_detour.recipe.recipe import Recipe
from clm_detour.train.optim import load_optimizer_state, make_optimizer, save_optimizer_state
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import UserError

PEAK = 2e-2
SETTINGS = Optimizer(betas=(0.9, 0.98), eps=1e-6, weight_decay=1e-2)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int, rate: float = PEAK) -> None:
    torch.manual_seed(seed)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    model(torch.randn(5, 8)).square().sum().backward()
    optimizer.step()


def test_it_is_composers_decoupled_adamw_under_a_changing_rate():
    ours, theirs = network(), network()
    matrices = [p for p in theirs.parameters() if p.ndim >= 2]
    vectors = [p for p in theirs.parameters() if p.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    reference = DecoupledAdamW(groups, lr=PEAK, betas=(0.9, 0.98), eps=1e-6, weight_decay=1e-2)
    optimizer = make_optimizer(ours, SETTINGS, PEAK)
    for seed, rate in enumerate([PEAK, PEAK, PEAK / 2, PEAK / 10, PEAK / 7]):
        step(ours, optimizer, seed, rate)
        step(theirs, reference, seed, rate)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_biases_and_norms_do_not_decay():
    model = network()
    optimizer = make_optimizer(model, SETTINGS, PEAK)
    undecayed = [p for group in optimizer.param_groups if not group["weight_decay"] for p in group["params"]]
    assert len(undecayed) == 4
    assert all(p.ndim == 1 for p in undecayed)


def test_moments_cross_a_phase_boundary_bit_for_bit(tmp_path):
    model = network()
    optimizer = make_optimizer(model, SETTINGS, PEAK)
    for seed in range(3):
        step(model, optimizer, seed)
    save_optimizer_state(optimizer, model, tmp_path / "optimizer.safetensors")
    other = network()
    other.load_state_dict(model.state_dict())
    restored = make_optimizer(other, SETTINGS, PEAK)
    load_optimizer_state(restored, other, tmp_path / "optimizer.safetensors")
    for old, new in zip(model.parameters(), other.parameters(), strict=True):
        for kind in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[old][kind], restored.state[new][kind])
    step(model, optimizer, 9)
    step(other, restored, 9)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_damaged_file_of_moments_is_named_with_the_remedy(tmp_path):
    model = network()
    optimizer = make_optimizer(model, SETTINGS, PEAK)
    step(model, optimizer, 0)
    path = tmp_path / "optimizer.safetensors"
    save_optimizer_state(optimizer, model, path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"optimizer\.safetensors is missing or damaged.*moments: fresh"):
        load_optimizer_state(optimizer, model, path)


def test_moments_of_another_model_are_refused(tmp_path):
    small = nn.Sequential(nn.Linear(8, 4))
    optimizer = make_optimizer(small, SETTINGS, PEAK)
    step(small, optimizer, 0)
    save_optimizer_state(optimizer, small, tmp_path / "optimizer.safetensors")
    model = network()
    with pytest.raises(UserError, match=r"no optimizer state of .*moments: fresh"):
        load_optimizer_state(make_optimizer(model, SETTINGS, PEAK), model, tmp_path / "optimizer.safetensors")


def test_moments_before_any_step_are_those_that_a_first_step_starts_with(tmp_path):
    frozen = network()
    frozen[0].requires_grad_(False)
    optimizer = make_optimizer(frozen, SETTINGS, PEAK)
    save_optimizer_state(optimizer, frozen, tmp_path / "optimizer.safetensors")
    assert not any("/0." in name for name in read_tensors(tmp_path / "optimizer.safetensors", ""))
    other = network()
    other[0].requires_grad_(False)
    restored = make_optimizer(other, SETTINGS, PEAK)
    load_optimizer_state(restored, other, tmp_path / "optimizer.safetensors")
    for seed in range(2):
        step(frozen, optimizer, seed)
        step(other, restored, seed)
    assert all(torch.equal(a, b) for a, b in zip(frozen.parameters(), other.parameters(), strict=True))


def test_a_phase_goes_on_from_a_checkpoint_before_which_all_steps_were_left_out(
    prepared, stop_after, monkeypatch
):
    config = prepared("run", "train.on_bad_loss=skip", "train.bad_loss_above=0.001")
    run = Recipe(config).phase("base", "pretrain")
    stop_after(5)
    with pytest.raises(KeyboardInterrupt):
        train_phase(Recipe(config), run)
    monkeypatch.undo()
    config.train.bad_loss_above = None
    assert train_phase(Recipe(config), run)
    record = Recipe(config).folder.phase(run.id).record
    assert '"skipped_steps": 4' in record.read_text()

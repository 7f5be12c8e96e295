"""Dropout after attention depends on the seed, the row, the position, the layer and the unit alone."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_reference import assert_close, gradients, some_labels, tiny_model, tokens

from clm_detour.model import ModernBertForPretraining
from clm_detour.model.dropout import MASK, OutputDropout, dropped, hashed, layer_keys

ROWS, LENGTH, RATE = 4, 30, 0.25
LENGTHS = [[10, 20], [30], [1, 29], [7, 7, 16]]
NUMBERS = torch.tensor([70, 71, 72, (1 << 40) + 70])


@pytest.fixture
def model() -> ModernBertForPretraining:
    network = tiny_model().train()
    network.model.output_dropout = OutputDropout(RATE, seed=3)
    return network


def step(model: ModernBertForPretraining, micro: int, numbers: torch.Tensor = NUMBERS):
    """Return the states and the gradients of the rows, taken `micro` at a time."""
    model.zero_grad()
    ids = torch.stack([tokens(LENGTH)] * ROWS)
    states = []
    for first in range(0, ROWS, micro):
        rows = slice(first, first + micro)
        output = model(
            ids[rows],
            document_lengths=LENGTHS[rows],
            labels=some_labels(ids)[rows],
            row_numbers=numbers[rows],
        )
        output.loss_sum.backward()
        states.append(output.last_hidden_state.detach())
    return torch.cat(states), gradients(model)


@pytest.mark.parametrize("micro", [1, 2])
def test_a_step_is_the_same_with_any_micro_batch(model, micro):
    states, grads = step(model, ROWS)
    others, other_grads = step(model, micro)
    assert_close(others, states)
    for name, grad in grads.items():
        assert_close(other_grads[name], grad)


def test_checkpointed_layers_drop_the_same_units(model):
    states, grads = step(model, ROWS)
    model.gradient_checkpointing_enable()
    others, other_grads = step(model, ROWS)
    assert torch.equal(states, others)
    for name, grad in grads.items():
        assert_close(other_grads[name], grad)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_layers_drop_the_same_units(model):
    states, grads = step(model, ROWS)
    model.compile_layers()
    others, other_grads = step(model, ROWS)
    assert_close(others, states)
    for name, grad in grads.items():
        assert_close(other_grads[name], grad)


def test_other_rows_and_other_seeds_drop_other_units(model):
    states, _ = step(model, ROWS)
    others, _ = step(model, ROWS, NUMBERS + 1)
    assert not torch.equal(others, states)
    model.model.output_dropout = OutputDropout(RATE, seed=4)
    assert not torch.equal(step(model, ROWS)[0], states)


def test_nothing_is_dropped_in_evaluation_mode(model):
    ids = tokens(LENGTH)[None]
    with torch.no_grad():
        found = model.eval()(ids, row_numbers=NUMBERS[:1]).logits
        model.model.output_dropout = None
        assert torch.equal(found, model(ids).logits)


def test_rows_without_numbers_drop_random_units(model):
    ids = tokens(LENGTH)[None]
    torch.manual_seed(0)
    first, second = (model(ids).last_hidden_state for _ in range(2))
    torch.manual_seed(0)
    assert not torch.equal(first, second)
    assert torch.equal(model(ids).last_hidden_state, first)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_of_dropped_units_is_the_rate_and_units_are_independent(rate):
    keys_T = OutputDropout(rate, seed=17).token_keys(torch.arange(20), 100).flatten()
    masks = [dropped(torch.ones(2000, 64), layer_keys(keys_T, layer), rate) == 0 for layer in (0, 1)]
    for mask in masks:
        by_unit, by_token = mask.double().mean(0), mask.double().mean(1)
        assert abs(mask.double().mean() - rate) < 5 * (rate * (1 - rate) / mask.numel()) ** 0.5
        assert (by_unit - rate).abs().max() < 5 * (rate * (1 - rate) / 2000) ** 0.5
        assert (by_token - rate).abs().max() < 6 * (rate * (1 - rate) / 64) ** 0.5
    both = torch.stack([masks[0].flatten().double(), masks[1].flatten().double()])
    assert torch.corrcoef(both)[0, 1].abs() < 5 / masks[0].numel() ** 0.5
    neighbors = torch.stack([masks[0][:-1].flatten().double(), masks[0][1:].flatten().double()])
    assert torch.corrcoef(neighbors)[0, 1].abs() < 5 / masks[0].numel() ** 0.5


def test_units_that_stay_are_scaled_so_that_the_mean_stays():
    update = torch.randn(50, 8)
    output = dropped(update, torch.arange(50), 0.2)
    kept = output != 0
    assert torch.equal(output[kept], (update / 0.8)[kept])


@given(st.integers(min_value=0, max_value=2**62))
def test_the_hash_is_that_of_its_definition(number):
    x = number & MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK
    assert hashed(torch.tensor(number)).item() == x ^ (x >> 16)

"""The residual stream may have the precision of autocast, in training alone; its norms compute in fp32."""

from __future__ import annotations

import pytest
import torch
from model_reference import assert_close, packed_ids, randomise, tiny_config, tokens

from clm_detour.model import ModernBertForPretraining


@pytest.fixture
def model() -> ModernBertForPretraining:
    network = ModernBertForPretraining(tiny_config(num_hidden_layers=6), "portable").train()
    randomise(network)
    return network


def loss_of(model: ModernBertForPretraining) -> torch.Tensor:
    ids = tokens(40)[None]
    with torch.autocast("cpu", torch.bfloat16):
        return model(ids, document_ids=packed_ids([9, 30, 1]), labels=ids).loss


def states_of(model: ModernBertForPretraining) -> list[torch.Tensor]:
    each: list[torch.Tensor] = []
    with torch.autocast("cpu", torch.bfloat16):
        model.encode(tokens(40)[None], each=each)
    return each


def test_the_stream_is_half_in_training_and_norms_are_not(model: ModernBertForPretraining) -> None:
    normed: list[tuple[torch.Tensor, torch.Tensor]] = []
    for layer in model.model.layers:
        layer.mlp_norm.register_forward_hook(lambda _, inputs, output: normed.append((inputs[0], output)))
    assert {state.dtype for state in states_of(model)} == {torch.float32}
    model.model.half_residual = True
    assert {state.dtype for state in states_of(model)[1:]} == {torch.bfloat16}
    for (stream, output), layer in zip(normed[6:], model.model.layers, strict=True):
        assert stream.dtype == torch.bfloat16
        assert_close(output.float(), layer.mlp_norm(stream.float()), 2**-8)


def test_training_is_near_that_with_an_exact_stream(model: ModernBertForPretraining) -> None:
    found = []
    for half in (False, True):
        model.zero_grad()
        model.model.half_residual = half
        loss = loss_of(model)
        loss.backward()
        grads = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())
        found.append((loss.detach(), grads))
    (exact, exact_grads), (near, near_grads) = found
    assert near != exact
    assert_close(near, exact, 1e-2)
    assert torch.cosine_similarity(exact_grads, near_grads, dim=0) > 0.99


@pytest.mark.parametrize("autocast", [False, True])
def test_scores_and_fp32_do_not_change_by_one_bit(model: ModernBertForPretraining, autocast: bool) -> None:
    """In evaluation under autocast, and in training without it."""
    model.train(not autocast)
    ids, losses = tokens(40)[None], []
    for half in (False, True):
        model.model.half_residual = half
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            losses.append(model(ids, labels=ids).loss)
    assert torch.equal(*losses)


def test_checkpointing_gives_the_same_bits(model: ModernBertForPretraining) -> None:
    model.model.half_residual = True
    loss_of(model).backward()
    grad = model.model.layers[0].attn.Wqkv.weight.grad
    model.zero_grad()
    model.gradient_checkpointing_enable()
    loss_of(model).backward()
    assert torch.equal(model.model.layers[0].attn.Wqkv.weight.grad, grad)


@pytest.mark.slow
def test_compiled_layers_take_it(model: ModernBertForPretraining) -> None:
    model.model.half_residual = True
    eager = loss_of(model)
    model.compile_layers()
    compiled = loss_of(model)
    compiled.backward()
    assert_close(compiled, eager, 1e-2)
    assert {state.dtype for state in states_of(model)[1:]} == {torch.bfloat16}

"""The network equals transformers': logits, losses and all gradients, in fp32, relative 1e-5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from model_reference import (
    VOCABULARY,
    assert_close,
    gradients,
    packed_ids,
    padded,
    same_masked_lm,
    some_labels,
    tiny_model,
    tokens,
)
from torch import Tensor

from clm_detour.model import ModernBertForPretraining, next_token_labels

needs_decoder = pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) < 5, reason="transformers >= 5 has an exact decoder"
)
BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
CONFIGS = {
    "plain": {},
    "biases": BIASES,
    "untied": {"tie_word_embeddings": False, "decoder_bias": False},
    "other shape": {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 5,
        "global_attn_every_n_layers": 2,
        "local_attention": 6,
        "global_rope_theta": 500.0,
        "local_rope_theta": 50.0,
    },
    "all global": {"num_hidden_layers": 2, "global_attn_every_n_layers": 1, "hidden_activation": "silu"},
}
LENGTHS = [9, 1, 23, 4, 5, 17]


def reference_run(
    reference: torch.nn.Module, ids: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """One document at a time: (T, V) logits, mean loss, gradients."""
    logits = torch.cat([reference(document[None]).logits[0] for document in ids.split(LENGTHS)])
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    return logits.detach(), loss.detach(), gradients(reference)


def run_packed(model: ModernBertForPretraining, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    output = model(ids[None], document_ids=packed_ids(LENGTHS), labels=labels[None], return_logits=True)
    return output.logits[0], output.loss


def run_padded(side: str) -> Callable[..., tuple[Tensor, Tensor]]:
    def run(model: ModernBertForPretraining, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mask = padded(torch.ones_like(ids), LENGTHS, 0, side)
        rows, answers = padded(ids, LENGTHS, 0, side), padded(labels, LENGTHS, -100, side)
        output = model(rows, attention_mask=mask, labels=answers, return_logits=True)
        assert (output.logits[mask == 0] == 0).all()
        return output.logits[mask == 1], output.loss

    return run


def run_one_at_a_time(model: ModernBertForPretraining, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    documents = zip(ids.split(LENGTHS), labels.split(LENGTHS), strict=True)
    outputs = [model(d[None], labels=answer[None], return_logits=True) for d, answer in documents]
    total, count = sum(output.loss_sum for output in outputs), sum(output.predicted for output in outputs)
    return torch.cat([output.logits[0] for output in outputs]), total / count


RUNS = {
    "packed": run_packed,
    "padded right": run_padded("right"),
    "padded left": run_padded("left"),
    "one at a time": run_one_at_a_time,
}


@pytest.mark.parametrize("keys", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_bidirectional_equals_masked_lm(keys: dict[str, Any], implementation: str) -> None:
    model = tiny_model(**keys)
    ids, labels = tokens(sum(LENGTHS)), some_labels(tokens(sum(LENGTHS)))
    logits, loss, grads = reference_run(same_masked_lm(model, implementation), ids, labels)
    for run in RUNS.values():
        ours, our_loss = run(model, ids, labels)
        assert_close(ours, logits)
        assert_close(our_loss, loss)
        our_loss.backward()
        for name, grad in gradients(model).items():
            assert_close(grad, grads[name])


@needs_decoder
@pytest.mark.parametrize("keys", CONFIGS.values(), ids=CONFIGS)
def test_causal_equals_the_decoder_class(keys: dict[str, Any]) -> None:
    model = tiny_model(**keys)
    model.causal = True
    decoder = model.to_decoder()
    ids = tokens(sum(LENGTHS))
    labels = next_token_labels(ids[None], packed_ids(LENGTHS))[0]
    logits, loss, grads = reference_run(decoder, ids, labels)
    grads = {name.removeprefix("lm_"): grad for name, grad in grads.items()}
    for run in RUNS.values():
        ours, our_loss = run(model, ids, labels)
        assert_close(ours, logits)
        assert_close(our_loss, loss)
        our_loss.backward()
        for name, grad in gradients(model).items():
            kind = ("q_proj", "k_proj", "v_proj")
            apart = [grads[name.replace("Wqkv", part)] for part in kind] if "Wqkv" in name else [grads[name]]
            assert_close(grad, torch.cat(apart))


@needs_decoder
def test_causal_loss_is_the_one_transformers_computes_from_unshifted_labels() -> None:
    model = tiny_model()
    model.causal = True
    ids = tokens(30).view(2, 15)
    theirs = model.to_decoder()(ids, labels=ids).loss
    assert_close(model(ids, labels=next_token_labels(ids)).loss, theirs)


def test_a_window_of_64_sees_distance_64_and_not_65() -> None:
    model = tiny_model(num_hidden_layers=2, local_attention=128)
    reference = same_masked_lm(model, "eager")
    ids = tokens(200)[None]
    assert_close(model(ids).logits, reference(ids).logits)


@needs_decoder
@pytest.mark.parametrize("distance", [63, 64, 65])
def test_the_decoder_sees_64_to_the_left_and_not_65(distance: int) -> None:
    """Layer 1 is local; layer 0's attention is silenced so that nothing else carries the change over."""
    model = tiny_model(num_hidden_layers=2, local_attention=128)
    model.causal = True
    with torch.no_grad():
        model.model.layers[0].attn.Wo.weight.zero_()
    ids = tokens(140)[None]
    changed = ids.clone()
    changed[0, 130 - distance] = (changed[0, 130 - distance] + 1) % VOCABULARY
    for network in (model, model.to_decoder()):
        moved = (network(ids).logits - network(changed).logits)[0, 130].abs().max().item()
        assert (moved > 1e-3) == (distance <= 64)


def test_hidden_states_are_the_embeddings_and_each_layers_output() -> None:
    model = tiny_model()
    ids = tokens(20).view(2, 10)
    ours = model(ids, output_hidden_states=True)
    theirs = same_masked_lm(model, "eager")(ids, output_hidden_states=True)
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 5
    for mine, other in zip(ours.hidden_states[:-1], theirs.hidden_states[:-1], strict=True):
        assert_close(mine, other)
    version_5 = int(transformers.__version__.split(".")[0]) >= 5
    last = ours.last_hidden_state if version_5 else ours.hidden_states[-1]
    assert_close(last, theirs.hidden_states[-1])
    assert_close(model.model.final_norm(ours.hidden_states[-1]), ours.last_hidden_state)

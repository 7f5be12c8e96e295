"""One network in several modes (causal, checkpointed, with dropout, only padding) is always deterministic."""

from __future__ import annotations

import pytest
import torch
from model_reference import (
    SPECIAL,
    assert_close,
    gradients,
    packed_ids,
    some_labels,
    tiny_config,
    tiny_model,
    tokens,
)
from transformers import ModernBertForMaskedLM

from clm_detour.model import ModernBertForPretraining
from clm_detour.utils.errors import UserError


def test_causal_can_be_switched_at_any_time_and_back() -> None:
    model = tiny_model()
    ids, documents = tokens(30)[None], packed_ids([10, 20])
    before = model(ids, document_ids=documents).logits
    model.causal = True
    between = model(ids, document_ids=documents).logits
    model.causal = False
    after = model(ids, document_ids=documents).logits
    assert torch.equal(before, after)
    assert not torch.allclose(before, between)


@pytest.mark.parametrize("frozen_embeddings", [False, True])
def test_gradient_checkpointing_changes_no_gradient(frozen_embeddings: bool) -> None:
    model = tiny_model().train()
    ids, documents = tokens(30)[None], packed_ids([10, 20])
    if frozen_embeddings:
        model.model.embeddings.requires_grad_(False)

    def grads() -> list[torch.Tensor]:
        model.zero_grad()
        model(ids, document_ids=documents, labels=some_labels(ids)).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad]

    plain = grads()
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    for checkpointed, expected in zip(grads(), plain, strict=True):
        assert torch.equal(checkpointed, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("causal", [False, True])
def test_fully_padded_rows_are_zero_and_never_nan(dtype: torch.dtype, causal: bool) -> None:
    model = tiny_model().to(dtype)
    model.causal = causal
    ids = tokens(36).view(3, 12)
    some, none = torch.ones_like(ids), torch.zeros_like(ids)
    some[1] = 0
    some[2, 3:] = 0
    for mask in (some, none):
        output = model(ids, attention_mask=mask, labels=ids.where(mask == 1, -100), return_logits=True)
        assert output.logits.isfinite().all()
        assert (output.logits[mask == 0] == 0).all()
        output.loss.backward()
        assert all(grad.isfinite().all() for grad in gradients(model).values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_row_of_padding_in_a_packed_batch_is_never_nan(dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    ids = torch.stack([tokens(12), torch.zeros(12, dtype=torch.int64)])
    documents = torch.stack([torch.zeros(12), torch.full((12,), -1)])
    output = model(ids, document_ids=documents, labels=torch.full_like(ids, -100), return_logits=True)
    assert output.logits.isfinite().all()
    assert output.loss == 0


@pytest.mark.parametrize("causal", [False, True])
def test_bf16_autocast_trains_fp32_weights(causal: bool) -> None:
    model = tiny_model().train()
    model.causal = causal
    ids = tokens(30)[None]
    exact = model(ids, labels=ids)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(ids, labels=ids)
    assert output.loss.dtype == torch.float32
    assert_close(output.loss, exact.loss, 2e-2)
    output.loss.backward()
    for grad in gradients(model).values():
        assert grad.dtype == torch.float32
        assert grad.isfinite().all()


def test_the_same_batch_gives_the_same_bytes() -> None:
    model = tiny_model().train()
    ids, documents = tokens(300)[None], packed_ids([10, 200, 90])

    def run() -> dict[str, torch.Tensor]:
        model(ids, document_ids=documents, labels=some_labels(ids)).loss.backward()
        return gradients(model)

    first, second = run(), run()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_seed_gives_one_model() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(5)
        weights.append(ModernBertForPretraining(tiny_config()).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_fresh_weights_are_spread_as_transformers_spreads_them() -> None:
    config = tiny_config(
        hidden_size=64, intermediate_size=96, vocab_size=500, attention_bias=True, mlp_bias=True,
        norm_bias=True, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    ours, theirs = ModernBertForPretraining(config).state_dict(), ModernBertForMaskedLM(config).state_dict()
    assert list(ours) == list(theirs)
    for name, weight in ours.items():
        assert weight.shape == theirs[name].shape
        if weight.dim() == 1:
            assert torch.equal(weight, theirs[name]), name
        else:
            assert weight.std() / theirs[name].std() == pytest.approx(1, abs=0.1), name
            assert weight.abs().max() / theirs[name].abs().max() == pytest.approx(1, abs=0.05), name


@pytest.mark.parametrize("kind", ["embedding_dropout", "mlp_dropout"])
def test_dropout_acts_in_training_only(kind: str) -> None:
    model = tiny_model(**{kind: 0.5})
    plain = tiny_model()
    ids = tokens(20)[None]
    assert torch.equal(model(ids).logits, plain(ids).logits)
    model.train()
    assert not torch.allclose(model(ids).logits, plain(ids).logits)


def test_attention_dropout_is_refused_in_training() -> None:
    model = tiny_model(attention_dropout=0.1)
    ids = tokens(20)[None]
    model(ids)
    with pytest.raises(UserError, match=r"attention_dropout is 0\.1"):
        model.train()(ids)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hidden_activation": "swoosh"}, "hidden_activation 'swoosh'"),
        ({"classifier_activation": "swoosh"}, "classifier_activation 'swoosh'"),
        ({"num_attention_heads": 5}, "num_attention_heads 5"),
        ({"local_attention": 1}, "local_attention 1"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types"),
        (
            {"layer_types": ["full_attention", "full_attention", "sliding_attention", "full_attention"]},
            "layer_types",
        ),
        ({"head_dim": 6}, "head_dim 6"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused_by_name(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModernBertForPretraining(tiny_config(**keys))


def test_scaled_rotary_positions_are_refused_by_name() -> None:
    config = tiny_config()
    plain = {"rope_type": "default", "rope_theta": 10_000.0}
    config.rope_parameters = {
        "full_attention": {**plain, "rope_type": "yarn", "factor": 4.0},
        "sliding_attention": plain,
    }
    with pytest.raises(UserError, match=r"rope_parameters.full_attention.rope_type is 'yarn'"):
        ModernBertForPretraining(config)


def test_the_callers_config_is_left_alone() -> None:
    config = tiny_config()
    before = config.to_dict()
    model = ModernBertForPretraining(config)
    model.config.hidden_size = 1
    assert config.to_dict() == before
    assert model.config.pad_token_id == SPECIAL["pad_token_id"]


@pytest.mark.parametrize("implementation", ["sdpa", "flash_attention_2"])
def test_a_config_that_names_a_kernel_of_transformers_is_welcome(implementation: str) -> None:
    config = tiny_config()
    config._attn_implementation = implementation
    assert ModernBertForPretraining(config).attention_choice.name == "portable"


def test_shapes_that_do_not_fit_are_named() -> None:
    ids = tokens(6).view(2, 3)
    with pytest.raises(UserError, match=r"input_ids has shape \(6,\)"):
        tiny_model()(ids.flatten())
    with pytest.raises(UserError, match=r"labels has shape \(3, 2\) but input_ids \(2, 3\)"):
        tiny_model()(ids, labels=ids.T)


def test_data_parallel_training_gives_the_same_gradients() -> None:
    """One process: the wrapper sees every parameter used, also where nothing is predicted."""
    model, ids = tiny_model().train(), tokens(30)[None]
    model(ids, labels=some_labels(ids)).loss.backward()
    expected = gradients(model)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        for labels in (torch.full_like(ids, -100), some_labels(ids)):
            model.zero_grad()
            parallel(ids, labels=labels).loss.backward()
    finally:
        torch.distributed.destroy_process_group()
    for name, grad in gradients(model).items():
        assert torch.equal(grad, expected[name])

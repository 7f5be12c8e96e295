"""Classification heads: equal to transformers' in fp32 (relative 1e-5), over packed and padded rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from model_reference import (
    assert_close,
    gradients,
    packed_ids,
    padded,
    randomise,
    some_labels,
    tiny_config,
    tiny_model,
    tokens,
)
from torch import Tensor

from clm_detour.model import ModernBertForSequenceClassification, ModernBertForTokenClassification
from clm_detour.model.backbone import ModernBertPreTrainedModel
from clm_detour.utils.errors import UserError

LENGTHS = [9, 1, 23, 4, 5, 17]
TOTAL = sum(LENGTHS)
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "biases": dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True),
    "other shape": {"num_hidden_layers": 5, "global_attn_every_n_layers": 2, "classifier_activation": "silu"},
}
CLASSES = torch.tensor([2, 0, 1, -100, 2, 1])
NUMBERS = torch.tensor([0.3, -1.2, 2.0, 0.0, 5.0, -0.4])
LABELS = {
    "single_label_classification": CLASSES,
    "multi_label_classification": (torch.arange(18).view(6, 3) % 4 == 0).float(),
    "regression": NUMBERS[:, None] * torch.tensor([1.0, 2.0, -1.0]),
}
Batch = dict[str, Any]


def sequence_model(seed: int = 0, **keys: Any) -> ModernBertForSequenceClassification:
    return filled(ModernBertForSequenceClassification(tiny_config(**{"num_labels": 3, **keys})), seed)


def token_model(seed: int = 0, **keys: Any) -> ModernBertForTokenClassification:
    return filled(ModernBertForTokenClassification(tiny_config(**{"num_labels": 5, **keys})), seed)


def filled(model: Any, seed: int) -> Any:
    randomise(model, seed)
    return model.eval()


def theirs(model: ModernBertPreTrainedModel) -> Any:
    """transformers' class of the same name with the same weights."""
    config = tiny_config(**{**model.config.to_dict(), "attn_implementation": "eager"})
    config.reference_compile = False
    other = getattr(transformers, model.transformers_class)(config)
    other.load_state_dict(model.state_dict())
    return other.eval()


def padded_batch(side: str = "right") -> Batch:
    ids = tokens(TOTAL)
    return {
        "input_ids": padded(ids, LENGTHS, 0, side),
        "attention_mask": padded(torch.ones_like(ids), LENGTHS, 0, side),
    }


def packed_batch() -> Batch:
    return {"input_ids": tokens(TOTAL)[None], "document_ids": packed_ids(LENGTHS)}


def batch_with_lengths() -> Batch:
    return {"input_ids": tokens(TOTAL)[None], "document_lengths": [LENGTHS]}


def two_rows() -> Batch:
    """The documents in two rows with padding behind and between them."""
    parts = tokens(TOTAL).split(LENGTHS)
    rows = [[0, 1, 2], [3, 4, 5]]
    length = 3 + max(sum(LENGTHS[i] + 1 for i in row) for row in rows)
    batch = {name: torch.zeros(2, length, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    batch["document_ids"] = torch.full((2, length), -1)
    for place, row in enumerate(rows):
        start = 0
        for i in row:
            part = slice(start, start + LENGTHS[i])
            batch["input_ids"][place, part] = parts[i]
            batch["attention_mask"][place, part] = 1
            batch["document_ids"][place, part] = i
            start += LENGTHS[i] + 1
    return batch


BATCHES: dict[str, Callable[[], Batch]] = {
    "packed": packed_batch,
    "packed, by lengths": batch_with_lengths,
    "packed in two padded rows": two_rows,
    "padded right": padded_batch,
    "padded left": lambda: padded_batch("left"),
}


def check(model: Any, batch: Batch, labels: Tensor, logits: Tensor, loss: Tensor, grads: dict) -> None:
    output = model(**batch, labels=labels)
    assert_close(output.logits, logits)
    assert_close(output.loss, loss)
    output.loss.backward()
    for name, grad in gradients(model).items():
        assert_close(grad, grads[name])


@pytest.mark.parametrize("keys", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("problem", LABELS)
def test_documents_are_classified_as_transformers_classifies_them(
    problem: str, pooling: str, keys: dict[str, Any]
) -> None:
    model = sequence_model(**keys, classifier_pooling=pooling, problem_type=problem)
    other = theirs(model)
    expected = other(**padded_batch(), labels=LABELS[problem])
    expected.loss.backward()
    grads = gradients(other)
    for make in BATCHES.values():
        check(model, make(), LABELS[problem], expected.logits.detach(), expected.loss.detach(), grads)


@pytest.mark.parametrize("keys", CONFIGS.values(), ids=CONFIGS)
def test_tokens_are_classified_as_transformers_classifies_them(keys: dict[str, Any]) -> None:
    model = token_model(**keys)
    other = theirs(model)
    flat = some_labels(tokens(TOTAL) % 5)
    expected = other(**padded_batch(), labels=padded(flat, LENGTHS, -100))
    expected.loss.backward()
    grads = gradients(other)
    real = padded_batch()["attention_mask"] == 1
    for make in BATCHES.values():
        batch = make()
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])) == 1
        labels = torch.full(mask.shape, -100)
        labels[mask] = flat
        output = model(**batch, labels=labels)
        assert_close(output.logits[mask], expected.logits[real])
        assert (output.logits[~mask] == 0).all()
        assert_close(output.loss, expected.loss.detach())
        output.loss.backward()
        for name, grad in gradients(model).items():
            assert_close(grad, grads[name])


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    pooling=st.sampled_from(["cls", "mean"]),
    causal=st.booleans(),
)
def test_logits_of_a_document_do_not_depend_on_its_company(
    lengths: list[int], pooling: str, causal: bool
) -> None:
    model = sequence_model(classifier_pooling=pooling)
    model.causal = causal and pooling == "mean"
    ids = tokens(sum(lengths))
    together = model(ids[None], document_ids=packed_ids(lengths)).logits
    alone = torch.cat([model(document[None]).logits for document in ids.split(lengths)])
    assert_close(together, alone)


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem"),
    [
        (1, NUMBERS, "regression"),
        (1, NUMBERS[:, None], "regression"),
        (1, CLASSES, "regression"),
        (3, CLASSES, "single_label_classification"),
        (3, CLASSES.int(), "single_label_classification"),
        (3, LABELS["multi_label_classification"], "multi_label_classification"),
    ],
)
def test_the_first_labels_settle_an_open_problem_type(num_labels: int, labels: Tensor, problem: str) -> None:
    model = sequence_model(num_labels=num_labels)
    other = theirs(model)
    # transformers' cross-entropy does not take int32, though it calls that single-label
    known = labels.long() if labels.dtype == torch.int32 else labels
    assert_close(
        model(**packed_batch(), labels=labels).loss, other(**padded_batch(), labels=known).loss.detach()
    )
    assert model.config.problem_type == other.config.problem_type == problem


def test_without_labels_the_problem_type_stays_open_and_there_is_no_loss() -> None:
    model = sequence_model()
    assert model(**packed_batch()).loss is None
    assert model.config.problem_type is None


def test_parameters_are_named_and_spread_as_in_transformers() -> None:
    keys = {
        "num_labels": 60,
        "hidden_size": 64,
        "vocab_size": 500,
        "norm_bias": True,
        "classifier_bias": True,
    }
    for ours in (ModernBertForSequenceClassification, ModernBertForTokenClassification):
        torch.manual_seed(0)
        config = tiny_config(**keys)
        mine = ours(config).state_dict()
        other = getattr(transformers, f"ModernBert{ours.kind}")(config).state_dict()
        assert list(mine) == list(other)
        for name, weight in mine.items():
            assert weight.shape == other[name].shape
            if weight.dim() == 1:
                assert torch.equal(weight, other[name]), name
            else:
                assert weight.std() / other[name].std() == pytest.approx(1, abs=0.1), name
                assert weight.abs().max() / other[name].abs().max() == pytest.approx(1, abs=0.05), name


def test_a_causal_classifier_stands_on_the_causal_network() -> None:
    pretrained, by_token = tiny_model(), token_model()
    by_mean = sequence_model(classifier_pooling="mean")
    bidirectional = by_token(**packed_batch()).logits
    for model in (by_token, by_mean):
        model.model.load_state_dict(pretrained.model.state_dict())
        model.causal = True
    pretrained.causal = True
    hidden = pretrained(**packed_batch()).last_hidden_state[0]
    assert_close(by_token(**packed_batch()).logits[0], by_token.classifier(by_token.head(hidden)))
    means = torch.stack([document.mean(0) for document in hidden.split(LENGTHS)])
    assert_close(by_mean(**packed_batch()).logits, by_mean.classifier(by_mean.head(means)))
    by_token.causal = False
    randomise(by_token)
    assert torch.equal(by_token(**packed_batch()).logits, bidirectional)


def test_a_causal_model_must_not_pool_first_tokens() -> None:
    model = sequence_model(classifier_pooling="cls")
    model.causal = True
    with pytest.raises(UserError, match="use 'mean'"):
        model(**packed_batch())


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_gradient_checkpointing_changes_no_gradient(pooling: str) -> None:
    model = sequence_model(classifier_pooling=pooling).train()

    def grads() -> dict[str, Tensor]:
        model(**packed_batch(), labels=CLASSES).loss.backward()
        return gradients(model)

    plain = grads()
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    assert all(torch.equal(grad, plain[name]) for name, grad in grads().items())


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("problem", LABELS)
def test_bf16_autocast_trains_fp32_weights(problem: str, pooling: str) -> None:
    model = sequence_model(classifier_pooling=pooling, problem_type=problem).train()
    exact = model(**packed_batch(), labels=LABELS[problem]).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**packed_batch(), labels=LABELS[problem]).loss
    assert loss.dtype == torch.float32
    assert_close(loss, exact, 5e-2)
    loss.backward()
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in gradients(model).values())


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_bf16_model_gives_bf16_logits_and_an_fp32_loss(pooling: str) -> None:
    model = sequence_model(classifier_pooling=pooling)
    exact = model(**packed_batch()).logits
    output = model.bfloat16()(**packed_batch(), labels=CLASSES)
    assert output.logits.dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32
    assert_close(output.logits.float(), exact, 5e-2)


@pytest.mark.parametrize("make", [sequence_model, token_model])
def test_classifier_dropout_acts_before_the_classifier_and_in_training_only(make: Callable[..., Any]) -> None:
    model = make(classifier_dropout=1.0)
    assert torch.equal(model(**packed_batch()).logits, make()(**packed_batch()).logits)
    logits = model.train()(**packed_batch()).logits
    assert torch.equal(logits, model.classifier.bias.expand_as(logits))


def test_where_nothing_has_a_label_the_loss_and_its_gradients_are_zero() -> None:
    for model, labels in (
        (sequence_model(), torch.full((6,), -100)),
        (token_model(), torch.full((1, TOTAL), -100)),
    ):
        loss = model(**packed_batch(), labels=labels).loss
        assert loss == 0
        loss.backward()
        assert all((grad == 0).all() for grad in gradients(model).values())


def test_a_row_of_padding_is_refused_and_not_skipped() -> None:
    batch = padded_batch()
    batch["attention_mask"][3] = 0
    with pytest.raises(UserError, match="Row 3 of the batch is nothing but padding"):
        sequence_model()(**batch)
    assert (token_model()(**batch).logits[3] == 0).all()


@pytest.mark.parametrize(
    ("keys", "labels", "message"),
    [
        (
            {},
            CLASSES[:5],
            r"labels has shape \(5,\); single_label.* of 6 documents with 3 labels wants \(6,\)",
        ),
        ({"problem_type": "multi_label_classification"}, CLASSES, r"wants \(6, 3\)"),
        ({}, LABELS["multi_label_classification"].long(), "set problem_type to one of .*multi_label"),
        ({"num_labels": 1}, LABELS["regression"], r"wants \(6, 1\)"),
        ({"problem_type": "single_label_classification"}, NUMBERS, "torch.long"),
        ({}, CLASSES + 1, "A label is 3; with num_labels 3 labels are 0 to 2"),
        ({}, CLASSES - 1, "A label is -1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(keys: dict[str, Any], labels: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sequence_model(**keys)(**packed_batch(), labels=labels)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("settled", [True, False], ids=["problem type given", "problem type open"])
@pytest.mark.parametrize(
    ("problem", "labels", "message"),
    [
        ("multi_label_classification", LABELS["multi_label_classification"], "A label is not from 0 to 1"),
        ("regression", NUMBERS, "A label is not a finite number"),
        ("regression", NUMBERS[:, None], "A label is not a finite number"),
    ],
)
def test_a_label_that_is_no_number_is_refused_and_settles_nothing(
    problem: str, labels: Tensor, message: str, settled: bool, value: float
) -> None:
    keys = {"problem_type": problem if settled else None, "num_labels": 1 if problem == "regression" else 3}
    model, labels = sequence_model(**keys), labels.clone()
    assert model(**packed_batch(), labels=labels).loss.isfinite()
    model, labels.view(-1)[1] = sequence_model(**keys), value
    with pytest.raises(UserError, match=message):
        model(**packed_batch(), labels=labels)
    assert model.config.problem_type == keys["problem_type"]


def test_token_labels_that_do_not_fit_are_refused() -> None:
    model, batch = token_model(), padded_batch()
    with pytest.raises(UserError, match=r"labels has shape \(6,\) but input_ids \(6, 23\)"):
        model(**batch, labels=CLASSES)
    with pytest.raises(UserError, match="A label is 5; with num_labels 5"):
        model(**batch, labels=torch.full((6, 23), 5))
    behind_padding = torch.where(batch["attention_mask"] == 1, 1, 5)
    assert model(**batch, labels=behind_padding).loss.isfinite()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"input_ids has shape \(59,\)"):
        sequence_model()(tokens(TOTAL))


def test_a_config_that_is_no_classifiers_is_refused() -> None:
    for change, message in (
        ({"problem_type": "guessing"}, "problem_type 'guessing' is not known; use one of regression"),
        ({"id2label": {0: "no", 2: "yes"}}, r"id2label numbers the labels \[0, 2\]"),
        ({"id2label": {}}, r"id2label numbers the labels \[\]"),
    ):
        config = tiny_config()
        for key, value in change.items():
            setattr(config, key, value)
        with pytest.raises(UserError, match=message):
            ModernBertForSequenceClassification(config)

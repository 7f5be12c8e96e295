"""BERT and RoBERTa on the packed network equal those of transformers, and nothing leaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from family_reference import KINDS, LONGEST, saved, theirs, tiny
from model_reference import assert_close, gradients, packed_ids, padded, some_labels, tokens
from test_attention import flex_trains_here
from test_flops import addmm_in_place
from test_leakage import influence
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clm_detour.config.schema import Freeze
from clm_detour.model import ModernBertForPretraining, next_token_labels
from clm_detour.model.compiling import cannot_compile
from clm_detour.model.cpu import attention as onednn
from clm_detour.model.families import FAMILIES, architecture_of
from clm_detour.model.flops import Frozen, flops_per_batch
from clm_detour.model.weights import DECODER, EMBEDDING
from clm_detour.recipe.freezing import freeze
from clm_detour.utils.errors import UserError

LENGTHS = [9, 1, 23, 4, 5, 17]
TOTAL = sum(LENGTHS)
Found = tuple[Tensor, Tensor, Mapping[str, Tensor]]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def by_document(network: Any, ids: Tensor, labels: Tensor) -> Found:
    """Logits (T, V), mean loss and gradients of transformers' network, which reads one document at a time."""
    logits = torch.cat([network(document[None]).logits[0] for document in ids.split(LENGTHS)])
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    return logits.detach(), loss.detach(), {name: p.grad for name, p in network.named_parameters()}


def in_one_row(model: Any, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    output = model(ids[None], document_ids=packed_ids(LENGTHS), labels=labels[None], return_logits=True)
    return output.logits[0], output.loss


def in_padded_rows(model: Any, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    mask = padded(torch.ones_like(ids), LENGTHS, 0, "left")
    rows, answers = padded(ids, LENGTHS, 0, "left"), padded(labels, LENGTHS, -100, "left")
    output = model(rows, attention_mask=mask, labels=answers, return_logits=True)
    return output.logits[mask == 1], output.loss


RUNS = {"packed": in_one_row, "padded": in_padded_rows}


def check_equal(model: ModernBertForPretraining, run: Callable[..., Any], expected: Found) -> None:
    """Logits, loss and the gradient of every weight are those of transformers, to 1e-5."""
    logits, loss, grads = expected
    ids = tokens(TOTAL)
    labels = next_token_labels(ids[None], packed_ids(LENGTHS))[0] if model.causal else some_labels(ids)
    ours, our_loss = run(model, ids, labels)
    assert_close(ours, logits)
    assert_close(our_loss, loss)
    our_loss.backward()
    theirs = dict(FAMILIES[model.config.model_type].to_ours(grads, "ForMaskedLM", True, "")[0])
    theirs.setdefault(EMBEDDING, theirs.get(DECODER))  # a tied weight has one of two names
    for name, grad in gradients(model).items():
        assert_close(grad, theirs[name])


def open_with(backend: str, folder: Path) -> ModernBertForPretraining:
    if backend == "flex" and not flex_trains_here():
        pytest.skip("torch has no backward of FlexAttention on a CPU here")
    return ModernBertForPretraining.from_pretrained(folder, attention_backend=backend)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("backend", ["portable", "flex"])
def test_a_masked_model_equals_that_of_transformers(
    kind: str, backend: str, run: Callable[..., Any], tmp_path: Path
) -> None:
    network = theirs(kind)
    model = open_with(backend, saved(network, tmp_path))
    check_equal(model, run, by_document(network, tokens(TOTAL), some_labels(tokens(TOTAL))))


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("backend", ["portable", "flex"])
def test_a_causal_model_equals_that_of_transformers(
    kind: str, backend: str, run: Callable[..., Any], tmp_path: Path
) -> None:
    model = open_with(backend, saved(theirs(kind), tmp_path))
    model.causal = True
    decoder = model.to_decoder()
    assert type(decoder).__name__ == FAMILIES[kind].decoder
    assert decoder.config.is_decoder
    labels = next_token_labels(tokens(TOTAL)[None], packed_ids(LENGTHS))[0]
    check_equal(model, run, by_document(decoder, tokens(TOTAL), labels))
    back = ModernBertForPretraining.from_decoder(decoder)
    assert back.causal
    assert all(torch.equal(w, back.state_dict()[name]) for name, w in model.state_dict().items())


def test_untied_vocabularies_and_other_activations_are_exact(kind: str, tmp_path: Path) -> None:
    network = theirs(kind, tie_word_embeddings=False, hidden_act="relu", layer_norm_eps=1e-3)
    logits, loss, _ = by_document(network, tokens(TOTAL), some_labels(tokens(TOTAL)))
    model = ModernBertForPretraining.from_pretrained(saved(network, tmp_path))
    ours, our_loss = in_one_row(model, tokens(TOTAL), some_labels(tokens(TOTAL)))
    assert_close(ours, logits)
    assert_close(our_loss, loss)


@pytest.mark.skipif(onednn.unavailable() is not None, reason=str(onednn.unavailable()))
@pytest.mark.parametrize("causal", [False, True])
def test_the_compiled_attention_of_cpus_is_near(kind: str, causal: bool, tmp_path: Path) -> None:
    saved(theirs(kind, num_attention_heads=3), tmp_path)
    losses = []
    for backend in ("portable", "onednn"):
        model = open_with(backend, tmp_path)
        model.causal = causal
        ids = tokens(TOTAL)
        labels = next_token_labels(ids[None], packed_ids(LENGTHS))[0] if causal else some_labels(ids)
        with torch.autocast("cpu", torch.bfloat16, enabled=backend == "onednn"):
            losses.append(in_one_row(model, ids, labels)[1].detach())
    assert_close(losses[1], losses[0], 3e-2)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_zero_exactly_where_nothing_may_be_seen(
    kind: str, causal: bool, tmp_path: Path
) -> None:
    model = ModernBertForPretraining.from_pretrained(saved(theirs(kind), tmp_path), causal=causal)
    lengths = [7, 20, 1, 12]
    seen = influence(model, tokens(40)[None], packed_ids(lengths))
    same = packed_ids(lengths)[0][None, :] == packed_ids(lengths)[0][:, None]
    allowed = same & same.tril() if causal else same
    assert (seen[~allowed] == 0.0).all()
    assert (seen[allowed] > 0.0).all()


def test_positions_start_anew_in_each_document(kind: str, tmp_path: Path) -> None:
    model = ModernBertForPretraining.from_pretrained(saved(theirs(kind), tmp_path))
    logits = model(tokens(15).repeat(2)[None], document_ids=packed_ids([15, 15])).logits[0]
    assert_close(logits[15:], logits[:15])


def test_a_row_may_be_longer_than_a_document(kind: str, tmp_path: Path) -> None:
    model = ModernBertForPretraining.from_pretrained(saved(theirs(kind), tmp_path))
    assert architecture_of(model.config).longest == LONGEST
    ids = tokens(3 * LONGEST)[None]
    assert model(ids, document_lengths=[[LONGEST] * 3]).logits.shape == (1, 3 * LONGEST, 97)
    with pytest.raises(UserError, match="A document has 63 tokens, but the model has positions for 32"):
        model(ids, document_lengths=[[LONGEST + 1, 2 * LONGEST - 1]])


def test_checkpointed_layers_and_a_half_residual_train(kind: str, tmp_path: Path) -> None:
    model = ModernBertForPretraining.from_pretrained(saved(theirs(kind), tmp_path)).train()
    ids, labels = tokens(TOTAL), some_labels(tokens(TOTAL))

    def run() -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = in_one_row(model, ids, labels)[1]
        loss.backward()
        return loss.detach(), torch.cat([grad.flatten() for grad in gradients(model).values()])

    loss, grads = run()
    model.gradient_checkpointing_enable()
    assert all(torch.equal(*pair) for pair in zip(run(), (loss, grads), strict=True))
    model.model.half_residual = True
    half_loss, half_grads = run()
    assert half_loss != loss
    assert_close(half_loss, loss, 3e-2)
    assert torch.cosine_similarity(half_grads, grads, dim=0) > 0.98


@pytest.mark.slow
@pytest.mark.skipif(cannot_compile("cpu") is not None, reason=str(cannot_compile("cpu")))
def test_compiled_layers_are_exact(tmp_path: Path) -> None:
    saved(theirs("roberta"), tmp_path)
    found = []
    for compiled in (False, True):
        model = ModernBertForPretraining.from_pretrained(tmp_path).train()
        if compiled:
            model.compile_layers()
        loss = in_one_row(model, tokens(TOTAL), some_labels(tokens(TOTAL)))[1]
        loss.backward()
        found.append((loss.detach(), torch.cat([grad.flatten() for grad in gradients(model).values()])))
    for plain, fast in zip(*found, strict=True):
        assert_close(fast, plain)


@pytest.mark.parametrize(("layers", "embeddings"), [(None, False), ("0-1", True)])
def test_operations_equal_torchs_counter(kind: str, layers: str | None, embeddings: bool) -> None:
    model = ModernBertForPretraining(tiny(kind))
    freeze(Freeze(layers, embeddings, False), model)
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm_in_place})
    with counter:
        output = model(
            tokens(TOTAL)[None], document_ids=packed_ids(LENGTHS), labels=some_labels(tokens(TOTAL))[None]
        )
        output.loss.backward()
    products = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op))
    count = flops_per_batch(model.config, LENGTHS, int(output.predicted), False, frozen=Frozen.of(model))
    assert products == count.linear + count.head


def test_a_new_head_and_new_weights_are_those_of_the_config(kind: str) -> None:
    model = ModernBertForPretraining(tiny(kind, initializer_range=0.05, hidden_size=240))
    for name, weight in model.named_parameters():
        if "norm" in name:
            assert (weight == (1 if name.endswith("weight") else 0)).all()
        elif name.endswith("weight"):
            assert weight.std().item() == pytest.approx(0.05, rel=0.15), name


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is true"),
        ({"num_attention_heads": 5}, "hidden_size 24 over num_attention_heads 5"),
    ],
)
def test_what_is_not_computed_exactly_is_refused_by_name(kind: str, keys: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        ModernBertForPretraining(tiny(kind, **keys))


def test_other_families_are_refused_by_name(tmp_path: Path) -> None:
    transformers.DebertaV2Config(vocab_size=50).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"'deberta-v2' model, .* relative positions"):
        ModernBertForPretraining.from_pretrained(tmp_path)

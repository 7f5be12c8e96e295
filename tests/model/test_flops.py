"""FLOPs are counted exactly: torch's own counter, and pairs that are counted one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_reference import packed_ids, some_labels, tiny_config, tiny_model, tokens
from torch.utils.flop_counter import FlopCounterMode

from clm_detour.config.schema import Freeze
from clm_detour.model.documents import Documents
from clm_detour.model.flops import Frozen, flops_per_batch, seen_pairs
from clm_detour.recipe.freezing import freeze

LENGTHS = [9, 1, 23]


def addmm_in_place(out: Any, left: Any, right: Any, **_: Any) -> int:
    """The loss adds up the vocabulary's gradient with it; torch's counter does not know it."""
    return 2 * left[0] * left[1] * right[1]


@pytest.mark.parametrize("training", [False, True])
def test_linear_parts_equal_torchs_counter(training: bool) -> None:
    model = tiny_model()
    ids = tokens(sum(LENGTHS))[None]
    labels = some_labels(ids)
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm_in_place})
    with counter, torch.set_grad_enabled(training):
        output = model(ids, document_ids=packed_ids(LENGTHS), labels=labels, return_logits=False)
        if training:
            output.loss.backward()
    products = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op))
    expected = flops_per_batch(model.config, LENGTHS, int(output.predicted), False, training)
    assert products == expected.linear + expected.head
    assert expected.total == expected.linear + expected.attention + expected.head


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("layers", "embeddings", "head"),
    [("", False, True), ("0-1", False, False), ("0-1", True, False), ("1-2", True, True), ("", True, False)],
)
def test_what_is_frozen_costs_what_torchs_counter_says(
    layers: str, embeddings: bool, head: bool, tied: bool
) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    freeze(Freeze(layers or None, embeddings, head), model)
    ids = tokens(sum(LENGTHS))[None]
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm_in_place})
    with counter:
        output = model(ids, document_ids=packed_ids(LENGTHS), labels=some_labels(ids))
        output.loss.backward()
    products = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op))
    frozen = Frozen.of(model)
    expected = flops_per_batch(model.config, LENGTHS, int(output.predicted), False, frozen=frozen)
    assert products == expected.linear + expected.head
    whole = flops_per_batch(model.config, LENGTHS, int(output.predicted), False)
    assert expected.total < whole.total
    assert (expected.attention < whole.attention) == (layers == "0-1" and embeddings)


@pytest.mark.parametrize("window", [None, 1, 4, 200])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 4, 5, 6, 30])
def test_pairs_equal_the_mask_counted(length: int, causal: bool, window: int | None) -> None:
    position = torch.arange(length)
    distance = position[None, :] - position[:, None]
    seen = distance.abs() <= (length if window is None else window)
    if causal:
        seen &= distance <= 0
    assert seen_pairs(length, causal, window) == seen.sum()


def test_attention_counts_two_products_per_head_over_the_pairs() -> None:
    config = tiny_config(num_hidden_layers=2)  # one global layer, one local with window 4
    count = flops_per_batch(config, [30], 0, causal=False, training=False)
    assert count.attention == 4 * config.hidden_size * (30 * 30 + seen_pairs(30, False, 4))
    assert count.head == 0


def test_documents_and_their_lengths_count_the_same() -> None:
    config = tiny_config()
    by_lengths = flops_per_batch(config, LENGTHS, 3, causal=True)
    assert by_lengths == flops_per_batch(config, Documents(LENGTHS), 3, causal=True)


def test_the_vocabulary_costs_modernbert_base_about_a_quarter_in_clm_and_little_in_mlm() -> None:
    """The recipe's 23 % and 4 %: 10,000 predicted positions of 10,000, and 15 % of them."""
    config = tiny_config(
        vocab_size=50368, hidden_size=768, intermediate_size=1152, num_hidden_layers=22,
        num_attention_heads=12, local_attention=128,
    )  # fmt: skip
    lengths = [1000] * 10
    causal = flops_per_batch(config, lengths, 10_000, causal=True)
    masked = flops_per_batch(config, lengths, 1_500, causal=False)
    assert causal.head / causal.total == pytest.approx(0.25, abs=0.03)
    assert masked.head / masked.total == pytest.approx(0.045, abs=0.01)

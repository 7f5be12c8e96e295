"""An attention mask is read as it is meant, or refused: it is never taken for its opposite."""

from __future__ import annotations

import pytest
import torch
from model_reference import some_labels, tiny_model, tokens
from torch import Tensor

from clm_detour import (
    ModernBertForPretraining,
    ModernBertForSequenceClassification,
    UserError,
    next_token_labels,
)
from clm_detour.model.padding import real_tokens

IDS = tokens(40).view(2, 20)
KEEP = torch.ones_like(IDS)
KEEP[1, 13:] = 0


def penalties(lowest: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(2, 20, dtype=dtype).masked_fill(KEEP == 0, lowest)


FORMS = {
    "int64": KEEP,
    "int32": KEEP.int(),
    "bool": KEEP.bool(),
    "float": KEEP.float(),
    "half": KEEP.half(),
    "-1e4": penalties(-1e4),
    "-inf": penalties(-torch.inf),
    "finfo.min": penalties(torch.finfo(torch.float32).min),
    "finfo.min of bf16": penalties(torch.finfo(torch.bfloat16).min, torch.bfloat16),
}


@pytest.mark.parametrize("extended", [False, True], ids=["(B, L)", "(B, 1, 1, L)"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_mask_means_the_same(form: str, extended: bool) -> None:
    mask = FORMS[form][:, None, None] if extended else FORMS[form]
    model, labels = tiny_model(), some_labels(IDS)
    expected = model(IDS, attention_mask=KEEP, labels=labels, return_logits=True)
    output = model(IDS, attention_mask=mask, labels=labels, return_logits=True)
    assert torch.equal(output.logits, expected.logits)
    assert output.loss == expected.loss
    assert torch.equal(real_tokens(mask, (2, 20)), KEEP == 1)
    assert torch.equal(
        next_token_labels(IDS, attention_mask=mask), next_token_labels(IDS, attention_mask=KEEP)
    )


def test_penalties_of_a_batch_without_padding_pad_nothing() -> None:
    model = tiny_model()
    output = model(IDS, attention_mask=torch.zeros(2, 1, 1, 20)).logits
    assert torch.equal(output, model(IDS).logits)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.zeros(2, 20), "may mean padding or, as penalties, tokens"),
        (torch.full((2, 20), 0.5), "something else than 1"),
        (torch.zeros(2, 20).index_fill(1, torch.tensor([3]), torch.nan), "something else than 1"),
        (KEEP.float() - 1e4 * (KEEP == 0), "something else than 1"),
        (torch.zeros(2, 20).index_fill(1, torch.tensor([3]), -0.5), "something else than 1"),
        (torch.tensor([[1] * 10 + [2] * 10] * 2), "numbers the texts of a row, pass it as document_ids"),
        (torch.ones(2, 1, 20, 20), r"shape \(2, 1, 20, 20\); .* document_ids"),
        (torch.ones(2, 20, 20), r"shape \(2, 20, 20\)"),
        (torch.ones(2, 1, 1, 19), r"shape \(2, 19\) but input_ids \(2, 20\)"),
    ],
    ids=["zeros", "halves", "nan", "1 and -1e4", "bias", "document numbers", "4-d", "3-d", "length"],
)
def test_a_mask_that_may_mean_something_else_is_refused(mask: Tensor, said: str) -> None:
    with pytest.raises(UserError, match=said):
        tiny_model()(IDS, attention_mask=mask)


def test_a_row_of_padding_is_named_whatever_the_form() -> None:
    model = ModernBertForSequenceClassification(tiny_model().config).eval()
    mask = torch.zeros(2, 20)
    mask[1] = -1e4
    for each in (mask, mask[:, None, None], (mask == 0).long()):
        with pytest.raises(UserError, match="Row 1 of the batch is nothing but padding"):
            model(IDS, attention_mask=each)


def test_masks_of_integers_still_pad_everything() -> None:
    output = ModernBertForPretraining(tiny_model().config)(IDS, attention_mask=torch.zeros_like(IDS))
    assert (output.logits == 0).all()

"""What a position must not see has a gradient of exactly zero; what it may see has not."""

from __future__ import annotations

import pytest
import torch
from model_reference import packed_ids, tiny_model, tokens
from torch import Tensor

from clm_detour.model import ModernBertForPretraining

LENGTHS = [7, 20, 1, 12]
TOTAL = sum(LENGTHS)


def influence(model: ModernBertForPretraining, ids: Tensor, document_ids: Tensor) -> Tensor:
    """(T, T): largest gradient of the logits at one position (row) to the embedding at another (column)."""
    embedded: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook = model.model.embeddings.register_forward_hook(keep)
    logits = model(ids, document_ids=document_ids).logits[0]
    hook.remove()
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
    totals = (logits * weights).sum(-1)
    rows = [torch.autograd.grad(total, embedded[0], retain_graph=True)[0] for total in totals]
    return torch.stack(rows).abs().amax(-1)


@pytest.mark.parametrize("kind", ["local", "global", "both"])
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_zero_exactly_where_nothing_may_be_seen(causal: bool, kind: str) -> None:
    model = tiny_model(num_hidden_layers=1 if kind == "global" else 2, local_attention=8)
    if kind == "local":  # silence the global layer 0
        torch.nn.init.zeros_(model.model.layers[0].attn.Wo.weight)
    model.causal = causal
    document_ids = packed_ids(LENGTHS)
    seen = influence(model, tokens(TOTAL)[None], document_ids)
    position = torch.arange(TOTAL)
    distance = position[None, :] - position[:, None]
    allowed = document_ids[0][None, :] == document_ids[0][:, None]
    if causal:
        allowed &= distance <= 0
    if kind == "local":
        allowed &= distance.abs() <= 4
    assert (seen[~allowed] == 0.0).all()
    assert (seen[allowed] > 0.0).all()


def test_a_document_never_changes_another() -> None:
    model = tiny_model()
    ids = tokens(TOTAL)[None]
    changed = ids.clone()
    changed[0, 7:27] = tokens(20, seed=5)
    for causal in (False, True):
        model.causal = causal
        before, after = (model(x, document_ids=packed_ids(LENGTHS)).logits[0] for x in (ids, changed))
        assert torch.equal(before[:7], after[:7])
        assert torch.equal(before[27:], after[27:])
        assert not torch.equal(before[7:27], after[7:27])


def test_padding_never_changes_a_document() -> None:
    model = tiny_model()
    ids = tokens(24).view(2, 12)
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    changed = torch.where(mask == 1, ids, 5)
    for causal in (False, True):
        model.causal = causal
        before, after = (model(x, attention_mask=mask).logits for x in (ids, changed))
        assert torch.equal(before, after)


def test_positions_start_anew_in_each_document() -> None:
    model = tiny_model()
    twice = tokens(15).repeat(2)[None]
    logits = model(twice, document_ids=packed_ids([15, 15])).logits[0]
    torch.testing.assert_close(logits[:15], logits[15:], rtol=1e-5, atol=1e-5)


def test_rows_are_documents_where_nothing_is_said() -> None:
    model = tiny_model()
    ids = tokens(30).view(3, 10)
    together = model(ids).logits
    for row, logits in zip(ids, together, strict=True):
        torch.testing.assert_close(model(row[None]).logits[0], logits, rtol=1e-5, atol=1e-5)

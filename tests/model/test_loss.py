"""The chunked loss is cross-entropy: value, gradients, precision, and only at the predicted positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_reference import assert_close, gradients, packed_ids, some_labels, tiny_model, tokens
from torch import Tensor

from clm_detour.model import kernels
from clm_detour.model import loss as loss_module
from clm_detour.model.loss import chunk_positions, predicted_places, summed_cross_entropy
from clm_detour.utils.errors import UserError


def problem(
    dtype: torch.dtype = torch.float32, bias: bool = True
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(23, 6, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(31, 6, generator=generator).to(dtype).requires_grad_()
    offset = torch.randn(31, generator=generator).to(dtype).requires_grad_() if bias else None
    return hidden, weight, offset, torch.randint(0, 31, (23,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 7, 23, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_chunked_equals_cross_entropy_with_all_gradients(chunk: int, bias: bool) -> None:
    hidden, weight, offset, labels = problem(bias=bias)
    inputs = [x for x in (hidden, weight, offset) if x is not None]
    loss, _ = summed_cross_entropy(hidden, weight, offset, labels, chunk)
    expected = F.cross_entropy(F.linear(hidden, weight, offset), labels, reduction="sum")
    assert_close(loss, expected, 1e-6)
    ours, theirs = torch.autograd.grad(loss * 0.37, inputs), torch.autograd.grad(expected * 0.37, inputs)
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine, other, 1e-6)


def test_gradients_agree_with_finite_differences() -> None:
    hidden, weight, offset, labels = problem(torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w, b: summed_cross_entropy(h, w, b, labels, 7)[0], (hidden, weight, offset)
    )


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_inputs_get_no_gradient_and_change_no_other(frozen: int) -> None:
    inputs = problem()[:3]
    labels = problem()[3]
    everything = torch.autograd.grad(summed_cross_entropy(*inputs, labels, 7)[0], inputs)
    inputs[frozen].requires_grad_(False)
    kept = [i for i in range(3) if i != frozen]
    rest = torch.autograd.grad(summed_cross_entropy(*inputs, labels, 7)[0], [inputs[i] for i in kept])
    for i, grad in zip(kept, rest, strict=True):
        assert torch.equal(grad, everything[i])


def test_the_backward_can_run_twice() -> None:
    hidden, weight, offset, labels = problem()
    loss, _ = summed_cross_entropy(hidden, weight, offset, labels, 7)
    first = torch.autograd.grad(loss, hidden, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, hidden)[0])


def test_under_bf16_autocast_the_loss_is_fp32_and_gradients_are_near() -> None:
    hidden, weight, offset, labels = problem()
    exact = torch.autograd.grad(
        summed_cross_entropy(hidden, weight, offset, labels)[0], (hidden, weight, offset)
    )
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = summed_cross_entropy(hidden, weight, offset, labels, 7)
    assert loss.dtype == torch.float32
    for near, expected in zip(torch.autograd.grad(loss, (hidden, weight, offset)), exact, strict=True):
        assert near.dtype == torch.float32
        assert_close(near, expected, 2e-2)


class Products:
    """torch's addmm as on CUDA, where a product of half precision can be added to an fp32 sum."""

    def __init__(self, refuses: bool):
        self.refuses = refuses
        self.added = 0

    def addmm(self, total: Tensor, left: Tensor, right: Tensor, *, out_dtype: Any, out: Tensor) -> Tensor:
        if self.refuses:
            raise RuntimeError("self and mat2 must have the same dtype")
        assert out is total
        assert out_dtype is total.dtype is torch.float32
        assert left.dtype is right.dtype is torch.bfloat16
        self.added += 1
        return out.add_(left.float() @ right.float())


@pytest.mark.parametrize("refuses", [False, True])
def test_the_gradient_of_the_vocabulary_is_added_up_by_the_product_where_torch_can(
    refuses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = Products(refuses)
    monkeypatch.setattr(torch, "addmm", products.addmm)
    monkeypatch.setattr(kernels, "DEVICE", "cpu")
    loss_module._product_adds.cache_clear()
    hidden, weight, offset, labels = problem()
    exact = torch.autograd.grad(summed_cross_entropy(hidden, weight, offset, labels)[0], weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = summed_cross_entropy(hidden, weight, offset, labels, 7)
    assert_close(torch.autograd.grad(loss, weight)[0], exact, 2e-2)
    chunks = -(-len(labels) // 7)
    assert products.added == (0 if refuses else 1 + chunks)  # the first one tries it
    loss_module._product_adds.cache_clear()


def test_without_gradients_it_also_counts_the_right_answers() -> None:
    hidden, weight, offset, labels = problem()
    logits = F.linear(hidden, weight, offset)
    labels[:9] = logits.argmax(-1)[:9]
    with torch.no_grad():
        loss, correct = summed_cross_entropy(hidden, weight, offset, labels, 7)
    assert_close(loss, F.cross_entropy(logits, labels, reduction="sum"), 1e-6)
    assert correct == (logits.argmax(-1) == labels).sum()


def test_chunks_shrink_as_the_vocabulary_grows() -> None:
    small, large = (chunk_positions(size, "cpu") for size in (1000, 50368))
    assert small > large >= 64


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_loss_counts_each_predicted_position_once(tied: bool) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    ids, documents = tokens(40)[None], packed_ids([13, 27])
    labels = some_labels(ids)
    output = model(ids, document_ids=documents, labels=labels, return_logits=True)
    expected = F.cross_entropy(output.logits[0], labels[0], reduction="sum")
    assert_close(output.loss_sum, expected)
    assert output.predicted == (labels != -100).sum()
    assert_close(output.loss, expected / output.predicted)
    expected.backward(retain_graph=True)
    from_logits = gradients(model)
    output.loss_sum.backward()
    for name, grad in gradients(model).items():
        assert_close(grad, from_logits[name])


def test_micro_batches_add_up_to_the_batch() -> None:
    model = tiny_model()
    ids = tokens(60).view(3, 20)
    labels = some_labels(ids)
    whole = model(ids, labels=labels)
    whole.loss.backward()
    expected = gradients(model)
    for row, answer in zip(ids, labels, strict=True):
        (model(row[None], labels=answer[None]).loss_sum / whole.predicted).backward()
    for name, grad in gradients(model).items():
        assert_close(grad, expected[name])


def test_nothing_to_predict_is_a_loss_of_zero_with_gradients() -> None:
    model = tiny_model()
    ids = tokens(10)[None]
    output = model(ids, labels=torch.full_like(ids, -100))
    assert output.loss == 0
    assert output.predicted == 0
    output.loss.backward()
    for grad in gradients(model).values():
        assert (grad == 0).all()


def test_evaluation_gives_the_same_loss_and_the_accuracy() -> None:
    model = tiny_model()
    ids = tokens(40)[None]
    training = model(ids, labels=ids)
    with torch.no_grad():
        evaluation = model(ids, labels=ids, return_logits=True)
    assert training.correct is None
    assert evaluation.correct == (evaluation.logits.argmax(-1) == ids).sum()
    assert_close(evaluation.loss, training.loss.detach(), 1e-6)


@pytest.mark.parametrize("labels", [[5, -100, -100, 0, 7], [-100, -100], [3, 3, 3], []])
def test_a_count_known_beforehand_finds_the_same_places(labels: list[int]) -> None:
    labels_T = torch.tensor(labels, dtype=torch.int64)
    known = sum(label != -100 for label in labels)
    assert torch.equal(predicted_places(labels_T, known), predicted_places(labels_T))


def test_a_wrong_count_is_refused() -> None:
    with pytest.raises(UserError, match="predicted is 2 but 1 positions have a label"):
        predicted_places(torch.tensor([4, -100]), 2)

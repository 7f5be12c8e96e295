"""With torch's varlen_attn a layer is one graph, attention included, for any documents of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from model_reference import assert_close, gradients, some_labels, tiny_config, tiny_model, tokens
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from clm_detour.model import ModernBertForPretraining, compiling, kernels
from clm_detour.model.attention import attention, varlen
from clm_detour.model.documents import FEWEST, Documents
from clm_detour.model.gpu import rotary


def probabilities(q: Tensor, k: Tensor, cu_seqlens: Tensor, window: list[int]) -> Tensor:
    """Return what each token takes of each other, (H, T, T), over documents, some of which may be empty."""
    place = torch.arange(len(q))
    document = torch.searchsorted(cu_seqlens[1:].long(), place, right=True)
    distance = place - place[:, None]
    seen = document == document[:, None]
    left, right = window
    seen = seen & ((left < 0) | (distance >= -left)) & ((right < 0) | (distance <= right))
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(~seen, -torch.inf).softmax(-1)


@torch.library.custom_op("clm_detour_tests::varlen", mutates_args=())
def operator(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, longest: int, window: list[int]) -> Tensor:
    lengths = cu.diff()
    assert longest >= lengths.max()
    return torch.einsum("hqk,khd->qhd", probabilities(q, k, cu, window), v).contiguous()


@operator.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, longest: int, window: list[int]) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@torch.library.custom_op("clm_detour_tests::varlen_backward", mutates_args=())
def operator_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, cu: Tensor, window: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    p = probabilities(q, k, cu, window)
    grad_p = torch.einsum("qhd,khd->hqk", grad, v)
    grad_scores = p * (grad_p - (grad_p * p).sum(-1, keepdim=True)) / q.shape[-1] ** 0.5
    return (
        torch.einsum("hqk,khd->qhd", grad_scores, k).contiguous(),
        torch.einsum("hqk,qhd->khd", grad_scores, q).contiguous(),
        torch.einsum("hqk,qhd->khd", p, grad).contiguous(),
    )


@operator_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, cu: Tensor, window: list[int]) -> Any:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))


def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*operator_backward(grad, *ctx.saved_tensors, ctx.window), None, None, None)


def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.window = inputs[5]


operator.register_autograd(backward, setup_context=keep)


def varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """torch's function, over an operator for a CPU and fp32."""
    return operator(query, key, value, cu_seq_q, max_q, list(window_size))


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """The graphs that torch makes of layers, differentiated and not compiled further."""
    monkeypatch.setattr(varlen, "find", lambda: varlen_attn)
    monkeypatch.setattr(varlen, "unavailable", lambda: None)
    monkeypatch.setattr(kernels, "DEVICE", "cpu")
    monkeypatch.setattr(kernels, "HALF", (torch.float32,))
    monkeypatch.setattr(rotary, "takes", lambda heads: False)
    counter = CompileCounterWithBackend("aot_eager")
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda part, **keys: compile_(part, **{**keys, "backend": counter}))
    compiling.compiled.cache_clear()
    torch._dynamo.reset()
    counters.clear()
    yield counter
    compiling.compiled.cache_clear()
    torch._dynamo.reset()


def model(compiled: bool, backend: str = "varlen") -> ModernBertForPretraining:
    made = ModernBertForPretraining(tiny_config(hidden_size=32), backend)
    made.load_state_dict(tiny_model(hidden_size=32).state_dict())
    if compiled:
        made.compile_layers()
    return made.train()


def step(network: ModernBertForPretraining, lengths: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
    ids = tokens(sum(lengths))[None]
    loss = network(ids, document_lengths=[lengths], labels=some_labels(ids)).loss
    loss.backward()
    return loss.detach(), gradients(network)


@pytest.mark.parametrize(("causal", "in_place"), [(False, True), (True, False)])
def test_attention_is_inside_the_graph_of_its_layer(
    graphs: CompileCounterWithBackend, causal: bool, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotary, "takes", lambda heads: in_place)
    whole, reference = model(True), model(False, "portable")
    whole.causal = reference.causal = causal
    found, expected = step(whole, [11, 9, 20]), step(reference, [11, 9, 20])
    assert_close(found[0], expected[0])
    for name, grad in expected[1].items():
        assert_close(found[1][name], grad)
    assert graphs.frame_count == 3  # first layer, global; the others, global and local
    for graph in graphs.graphs:
        names = [str(node.target) for node in graph.graph.nodes]
        assert sum("clm_detour_tests.varlen" in name for name in names) == 1
    assert not counters["graph_break"]


def test_other_documents_of_other_number_and_length_compile_nothing_anew(
    graphs: CompileCounterWithBackend,
) -> None:
    whole, reference = model(True), model(False, "portable")
    step(whole, [11, 9, 20])
    before = graphs.frame_count
    for lengths in ([1] * 8 + [32], [20, 20], [17, 3, 19, 1]):
        found, expected = step(whole, lengths), step(reference, lengths)
        assert_close(found[0], expected[0])
    assert graphs.frame_count == before


def test_checkpointing_computes_the_same(graphs: CompileCounterWithBackend) -> None:
    whole, reference = model(True), model(False, "portable")
    whole.gradient_checkpointing_enable()
    found, expected = step(whole, [11, 9, 20]), step(reference, [11, 9, 20])
    for name, grad in expected[1].items():
        assert_close(found[1][name], grad)
    assert graphs.frame_count == 3


@pytest.mark.parametrize("lengths", [[5], [3, 1, 9], [2] * 70])
def test_empty_documents_change_nothing(lengths: list[int]) -> None:
    documents = Documents(lengths)
    cu_seqlens, longest = documents.padded
    number = len(cu_seqlens) - 1
    assert number in (FEWEST, 2 * FEWEST)
    assert torch.equal(cu_seqlens[: len(lengths) + 1], documents.cu_seqlens)
    assert bool((cu_seqlens[len(lengths) :] == documents.tokens).all())
    assert documents.longest <= longest < 2 * documents.longest
    qkv = torch.randn(documents.tokens, 3, 2, 8)
    found = operator(*qkv.unbind(1), cu_seqlens, longest, [4, 4])
    assert_close(found, attention(*qkv.unbind(1), documents, False, 4, "portable"))


def test_a_batch_without_tokens_takes_no_kernel(graphs: CompileCounterWithBackend) -> None:
    whole = model(True).eval()
    with torch.no_grad():
        assert whole(torch.zeros(1, 0, dtype=torch.int64)).logits.shape[1] == 0

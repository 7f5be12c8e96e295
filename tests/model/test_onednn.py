"""The back end that is compiled for CPUs: exact in bf16, the same bits for any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from model_reference import assert_close, packed_ids, randomise, tiny_config, tokens
from test_attention import A_WINDOW, DOCUMENTS, ROWS, WINDOWS, check, projected

from clm_detour.model import ModernBertForPretraining
from clm_detour.model.attention import attention, choose_backend
from clm_detour.model.cpu import attention as onednn
from clm_detour.model.documents import Documents
from clm_detour.utils.errors import UserError

BF16 = torch.bfloat16
REASON = onednn.unavailable()
runs_here = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@runs_here
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("row", ROWS)
def test_equals_the_definition(row: str, causal: bool, window: int | None) -> None:
    lengths = ROWS[row](window or 4)
    check(lengths, causal, window, "onednn", 2e-2, projected(sum(lengths), BF16, heads=3, size=16))


@runs_here
@settings(max_examples=60, deadline=None)
@given(lengths=DOCUMENTS, causal=..., window=A_WINDOW)
def test_equals_the_definition_for_any_documents(
    lengths: list[int], causal: bool, window: int | None
) -> None:
    check(lengths, causal, window, "onednn", 2e-2, projected(sum(lengths), BF16))


@runs_here
@pytest.mark.parametrize("size", [2, 64, 80, 256])
def test_any_head_and_documents_longer_than_a_block(size: int) -> None:
    for causal, window in ((False, None), (True, None), (False, 64), (True, 300)):
        check([1100, 257, 64], causal, window, "onednn", 2e-2, projected(1421, BF16, heads=1, size=size))


@runs_here
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 64])
def test_errs_no_more_than_torch_does(causal: bool, window: int | None) -> None:
    def errors(backend: str) -> torch.Tensor:
        qkv = projected(900, BF16, heads=4, size=64)
        exact = qkv.detach().float().requires_grad_()
        weights = torch.randn(900, 4, 64, generator=torch.Generator().manual_seed(1)).to(BF16)
        for x, name in ((qkv, backend), (exact, "portable")):
            attention(*x.unbind(1), Documents([700, 200]), causal, window, name).backward(weights.to(x.dtype))
        return (qkv.grad.float() - exact.grad).square().sum((0, 2, 3)).sqrt()

    assert (errors("onednn") <= 1.1 * errors("portable")).all()


@runs_here
def test_any_number_of_threads_gives_the_same_bits() -> None:
    grads, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            qkv = projected(3000, BF16, heads=3, size=64)
            out = attention(*qkv.unbind(1), Documents([2100, 1, 899]), True, None, "onednn")
            out.float().square().sum().backward()
            grads.append(qkv.grad)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


@runs_here
def test_what_is_not_a_number_stays_so_in_its_document_only() -> None:
    qkv = projected(40, BF16, size=16).detach()
    qkv[3, 1] = torch.nan
    out = attention(*qkv.unbind(1), Documents([10, 30]), False, None, "onednn")
    assert out[:10].isnan().all()
    assert out[10:].isfinite().all()


@runs_here
def test_a_whole_model_trains_under_autocast_compiled_or_not() -> None:
    ids, documents = tokens(40)[None], packed_ids([9, 30, 1])
    grads = []
    for backend, compiled in (("portable", False), ("onednn", False), ("onednn", True)):
        model = ModernBertForPretraining(tiny_config(hidden_size=32), backend)
        randomise(model)
        run = torch.compile(model, backend="eager") if compiled else model
        with torch.autocast("cpu", BF16):
            assert model.attention_choice.name == backend
            run(ids, document_ids=documents, labels=ids).loss.backward()
        grads.append(model.model.layers[0].attn.Wqkv.weight.grad)
    assert_close(grads[1], grads[0], 1e-1)
    assert_close(grads[2], grads[1], 1e-2)  # compiled, queries are rotated before they are rounded


@runs_here
def test_a_model_under_autocast_takes_it_and_one_in_fp32_does_not() -> None:
    model = ModernBertForPretraining(tiny_config())
    assert model.attention_choice.name == "portable"
    with torch.autocast("cpu", BF16):
        assert model.attention_choice.name == "onednn"


def test_fp32_and_odd_heads_are_refused_with_the_remedy() -> None:
    with pytest.raises(
        UserError, match=r"'onednn' computes in bf16 on a CPU .* torch.float32 on cpu; .*'auto'"
    ):
        attention(*projected(9).unbind(1), Documents([9]), False, None, "onednn")
    with pytest.raises(UserError, match=r"size 2 to 256 in steps of 2 but the model's is 7; .*'portable'"):
        attention(*projected(9, BF16, size=7).unbind(1), Documents([9]), False, None, "onednn")


@runs_here
def test_where_onednn_is_switched_off_the_remedy_is_said() -> None:
    qkv = projected(9, BF16, size=16)
    with (
        torch.backends.mkldnn.flags(enabled=False),
        pytest.raises(UserError, match=r"switched off .*'portable'"),
    ):
        attention(*qkv.unbind(1), Documents([9]), False, None, "onednn")


@runs_here
def test_where_onednn_is_held_to_older_instructions_portable_is_taken() -> None:
    code = (
        "from clm_detour.model.attention import choose_backend; c = choose_backend(); print(c.name, c.reason)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.startswith("portable ")
    assert "held to older instructions" in said


@runs_here
def test_asked_for_by_name() -> None:
    assert choose_backend("onednn").reason == "asked for"

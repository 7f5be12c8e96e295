"""Which back end is chosen and why, what it refuses, and what it hands to its kernel.

Where there is no CUDA, stand-ins with the signatures and the meaning of its kernels take their place.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_standins import (
    FA2,
    FA3,
    FA4,
    VARLEN,
    Calls,
    Machine,
    varlen_attn,
    varlen_attn_of_torch_2_10,
)
from model_reference import assert_close, eager_attention, packed_ids, randomise, tiny_config, tokens
from test_attention import ROWS, WINDOWS, check, flex_trains_here, projected
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from clm_detour.model import ModernBertForPretraining, kernels
from clm_detour.model.attention import attention, choose_backend, flash, flex
from clm_detour.model.compiling import cannot_compile
from clm_detour.model.cpu import attention as onednn
from clm_detour.model.documents import Documents
from clm_detour.utils.errors import UserError

KERNELS = {
    "FlashAttention 2": (8, FA2, Calls.two),
    "FlashAttention 3": (9, FA3, Calls.three),
    "FlashAttention 3, early": (9, FA3, Calls.early_three),
    "FlashAttention 4": (10, FA4, Calls.four),
}


@pytest.fixture(params=[*KERNELS, "varlen"])
def half_only(request: pytest.FixtureRequest, machine: Machine) -> str:
    """`flash` or `varlen`, over a stand-in for its kernel."""
    if request.param == "varlen":
        machine.install(VARLEN, varlen_attn)
        return "varlen"
    major, module, function = KERNELS[request.param]
    machine.has_gpu(major)
    machine.install(module, functools.partial(function, Calls()))
    return "flash"


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("causal", [False, True])
def test_a_kernel_is_told_the_definition(half_only: str, causal: bool, window: int | None) -> None:
    for row in ROWS.values():
        lengths = row(window or 4)
        check(lengths, causal, window, half_only, 2e-2, projected(sum(lengths), torch.bfloat16, size=16))


@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.parametrize("name", KERNELS)
def test_flash_is_deterministic_where_torch_is_to_be(machine: Machine, name: str, mode: bool) -> None:
    major, module, function = KERNELS[name]
    calls = Calls()
    machine.has_gpu(major)
    machine.install(module, functools.partial(function, calls))
    qkv = projected(9, torch.bfloat16, size=16)
    torch.use_deterministic_algorithms(mode)
    try:
        attention(*qkv.unbind(1), Documents([4, 5]), True, 3, "flash")
    finally:
        torch.use_deterministic_algorithms(False)
    assert calls.deterministic is mode


def test_a_whole_model_trains_on_flash_under_autocast(machine: Machine) -> None:
    machine.install(FA2, Calls().two)
    config = tiny_config(hidden_size=32)
    ids, documents = tokens(40)[None], packed_ids([9, 30, 1])
    losses, grads = [], []
    for backend in ("flash", "portable"):
        model = ModernBertForPretraining(config, backend)
        randomise(model)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(ids, document_ids=documents, labels=ids)
        output.loss.backward()
        losses.append(output.loss.detach())
        grads.append(model.model.layers[0].attn.Wqkv.weight.grad)
    assert_close(losses[0], losses[1], 2e-2)
    assert_close(grads[0], grads[1], 1e-1)


def test_fp32_is_refused_with_its_remedies(half_only: str) -> None:
    qkv = projected(9, size=16)
    with pytest.raises(
        UserError, match=rf"'{half_only}' computes in bf16 .* torch.float32; .*autocast.* 'flex'"
    ):
        attention(*qkv.unbind(1), Documents([9]), False, None, half_only)


def test_a_model_left_on_the_cpu_is_refused_with_its_remedies(
    half_only: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "DEVICE", "cuda")
    qkv = projected(9, torch.bfloat16, size=16)
    with pytest.raises(
        UserError, match=rf"'{half_only}' runs on CUDA but the model is on cpu; .*\.to\('cuda'\)"
    ):
        attention(*qkv.unbind(1), Documents([9]), False, None, half_only)


@pytest.mark.parametrize("size", [12, 264])
def test_an_unusual_head_is_refused_by_its_size(half_only: str, size: int) -> None:
    qkv = projected(9, torch.bfloat16, size=size)
    with pytest.raises(
        UserError, match=rf"size 8 to 256 in steps of 8 but the model's is {size}; .*'portable'"
    ):
        attention(*qkv.unbind(1), Documents([9]), False, None, half_only)


ALL = {FA2: Calls.two, FA3: Calls.three, FA4: Calls.four}


@pytest.mark.parametrize(
    ("major", "installed", "taken"),
    [
        (8, ALL, "FlashAttention 2"),
        (9, ALL, "FlashAttention 3"),
        (9, {FA2: Calls.two, FA4: Calls.four}, "FlashAttention 4"),
        (9, {FA2: Calls.two, FA4: Calls.early_four}, "FlashAttention 2"),
        (10, ALL, "FlashAttention 4"),
        (10, {FA2: Calls.two, FA3: Calls.three}, "FlashAttention 2"),
        (12, ALL, "FlashAttention 2"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else str(value),
)
def test_flash_takes_the_best_release_for_the_gpu_and_says_which(
    machine: Machine, major: int, installed: dict[str, Any], taken: str
) -> None:
    machine.has_gpu(major)
    for module, function in installed.items():
        machine.install(module, functools.partial(function, Calls()))
    assert choose_backend().name == "flash"
    assert taken in choose_backend().reason
    assert taken in choose_backend("flash").reason
    attention(*projected(9, torch.bfloat16, size=16).unbind(1), Documents([9]), False, 3, "flash")


@pytest.mark.parametrize(
    ("module", "function", "reason"),
    [
        (FA2, None, "no FlashAttention for compute capability 9.x is installed"),  # what release 4 leaves
        (FA4, Calls.early_four, "the FlashAttention 4 that is installed is too old"),
    ],
)
def test_flash_says_what_is_missing(
    machine: Machine, module: str, function: Callable[..., Any] | None, reason: str
) -> None:
    machine.has_gpu(9)
    machine.install(module, function)
    assert flash.unavailable() == reason


def test_a_build_that_does_not_import_is_named(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, FA2)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol: _ZN3c10\\nand more')")
    assert flash.unavailable() == "flash_attn does not import (undefined symbol: _ZN3c10)"


def test_without_a_gpu_and_in_fp32_the_portable_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in (None, "auto"):
        choice = choose_backend(name, dtype=torch.float32)
        assert choice.name == "portable"
        assert "for torch.float32 on cpu" in choice.reason


@pytest.mark.parametrize("reason", [None, "there is no C++ compiler"])
def test_bf16_on_a_cpu_gets_the_compiled_one_where_it_runs(
    reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(onednn, "unavailable", lambda: reason)
    choice = choose_backend()
    assert choice.name == ("portable" if reason else "onednn")
    assert "for torch.bfloat16 on cpu" in choice.reason
    assert reason is None or f"no onednn: {reason}" in choice.reason


def test_on_a_gpu_the_fastest_is_taken_and_the_others_accounted_for(machine: Machine) -> None:
    machine.has_triton(False)
    choice = choose_backend()
    assert choice.name == "portable"
    assert all(why in choice.reason for why in ("no flash: ", "no varlen: ", "no flex: Triton"))
    machine.has_triton(True)
    assert choose_backend().name == "flex"
    machine.install(VARLEN, varlen_attn_of_torch_2_10)
    choice = choose_backend()
    assert choice.name == "flex"
    assert f"no varlen: torch {torch.__version__} has no varlen_attn with a window" in choice.reason
    machine.install(VARLEN, varlen_attn)
    assert choose_backend().name == "varlen"
    machine.install(FA2, Calls().two)
    assert choose_backend().name == "flash"


@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", torch.float32), ("cuda", torch.float32), ("cpu", torch.bfloat16)]
)
def test_beside_a_gpu_a_model_on_the_cpu_or_in_fp32_gets_none_of_its_kernels(
    machine: Machine, device: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "unavailable", lambda: "there is no C++ compiler")
    machine.install(FA2, Calls().two)
    choice = choose_backend(None, device, dtype)
    assert choice.name == "portable"
    assert f"for {dtype} on {device}" in choice.reason


def test_an_old_gpu_gets_the_portable_one(machine: Machine) -> None:
    machine.has_gpu(7, 5)
    machine.install(FA2, Calls().two)
    machine.install(VARLEN, varlen_attn)
    choice = choose_backend()
    assert choice.name == "portable"
    assert choice.reason.count("this GPU has 7.5") == 3


@pytest.mark.parametrize("name", ["portable", "flex"])
def test_what_runs_anywhere_can_be_asked_for(name: str) -> None:
    assert choose_backend(name).name == name
    assert "asked for" in choose_backend(name).reason


@pytest.mark.parametrize("name", ["flash", "varlen"])
def test_what_does_not_run_here_is_refused_with_the_reason(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=rf"'{name}' does not run here: there is no CUDA device; use 'auto'"):
        choose_backend(name)


def test_an_unknown_back_end_is_refused_by_name() -> None:
    with pytest.raises(
        UserError, match=r"'flush' is not known; use one of auto, flash, varlen, flex, onednn, portable"
    ):
        choose_backend("flush")


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.one_of(st.integers(1, 12), st.integers(1, 600)), min_size=1, max_size=6),
    causal=st.booleans(),
    window=st.one_of(st.none(), st.integers(1, 300)),
)
@example(
    lengths=[200], causal=False, window=None
)  # all of a block of keys, for all that there is of the queries
@example(lengths=[700], causal=True, window=300)
@example(lengths=[384], causal=False, window=128)
def test_block_masks_are_the_ones_torch_finds_by_looking_at_every_pair(
    lengths: list[int], causal: bool, window: int | None
) -> None:
    ours = flex.block_mask(Documents(lengths), causal, window)
    theirs = create_block_mask(ours.mask_mod, None, None, sum(lengths), sum(lengths), device="cpu")
    for part in (
        "kv_num_blocks",
        "kv_indices",
        "full_kv_num_blocks",
        "full_kv_indices",
        "q_indices",
        "seq_lengths",
    ):
        assert torch.equal(torch.as_tensor(getattr(ours, part)), torch.as_tensor(getattr(theirs, part)))


@pytest.mark.parametrize("causal", [False, True])
def test_block_masks_are_made_once_for_all_layers_of_a_kind(
    monkeypatch: pytest.MonkeyPatch, causal: bool
) -> None:
    made: list[BlockMask] = []
    make = flex.block_mask
    monkeypatch.setattr(flex, "block_mask", lambda *args: made.append(make(*args)) or made[-1])
    model = ModernBertForPretraining(tiny_config(num_hidden_layers=6), "flex").eval()
    model.causal = causal
    with torch.no_grad():
        model(tokens(30)[None], document_ids=packed_ids([10, 20]))
        assert len(made) == 2
        model(tokens(30)[None], document_ids=packed_ids([10, 20]))
        assert len(made) == 4


def test_flex_compiles_once_for_both_modes_every_window_and_any_documents() -> None:
    torch.compiler.reset()
    counter = CompileCounterWithBackend("eager")
    for lengths in ([256], [100, 156], [1] * 256):
        for causal in (False, True):
            for window in WINDOWS:
                through_the_kernel(counter, Documents(lengths), causal, window)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_flex_compiles_for_any_number_of_tokens_and_several_models() -> None:
    """torch refuses a function's ninth version by default."""
    modes = (True, False) if flex_trains_here() else (False,)
    torch.compiler.reset()
    counter = CompileCounterWithBackend("eager")
    for heads in (2, 3, 4, 5, 6, 7):
        for tokens_of_batch in (512, 256, 1, 700, 1000):
            whole = flex.in_whole_blocks(Documents([tokens_of_batch]))
            for gradients in modes:
                through_the_kernel(counter, whole, False, None, heads, gradients)
    assert counter.frame_count == len(modes) * (1 + 6)  # for the first number of tokens, then for any


@pytest.mark.slow
def test_flex_compiled_by_inductor_equals_the_definition() -> None:
    """The function that a GPU runs, as C++. torch compiles no backward of it for a CPU."""
    if reason := cannot_compile("cpu"):
        pytest.skip(reason)
    torch.compiler.reset()
    flex.compiled.cache_clear()
    for lengths in ([256], [100, 156], [65, 64, 63, 64], [1] * 40 + [216], [384], [300, 84]):
        q, k, v = (x.transpose(0, 1)[None] for x in projected(sum(lengths), size=16).detach().unbind(1))
        for causal in (False, True):
            for window in WINDOWS:
                mask = flex.block_mask(Documents(lengths), causal, window)
                with torch.no_grad():
                    out = flex.compiled(False)(q, k, v, mask)
                expected = eager_attention(
                    *(x[0].transpose(0, 1) for x in (q, k, v)), lengths, causal, window
                )
                assert_close(out[0].transpose(0, 1), expected)


def through_the_kernel(
    backend: Any,
    documents: Documents,
    causal: bool,
    window: int | None,
    heads: int = 2,
    gradients: bool = False,
) -> None:
    qkv = projected(documents.tokens, heads=heads).detach().requires_grad_(gradients)
    q, k, v = (x.transpose(0, 1)[None] for x in qkv.unbind(1))
    with torch.set_grad_enabled(gradients):
        flex.compiled(gradients, backend)(q, k, v, flex.block_mask(documents, causal, window))


@pytest.mark.parametrize(("total", "whole"), [(1, 256), (128, 256), (256, 256), (257, 384), (300, 384)])
def test_flex_fills_whole_blocks_with_one_more_document(total: int, whole: int) -> None:
    documents = flex.in_whole_blocks(Documents([1, total - 1] if total > 1 else [1]))
    assert documents.tokens == whole
    assert sum(documents.lengths[: -1 if whole > total else None]) == total


@pytest.mark.parametrize(("size", "taken"), [(64, "varlen"), (20, "flex"), (12, "portable")])
def test_auto_knows_which_heads_a_kernel_takes(machine: Machine, size: int, taken: str) -> None:
    machine.install(VARLEN, varlen_attn)
    choice = choose_backend(None, "cuda", torch.bfloat16, size)
    assert choice.name == taken
    assert (
        size == 64 or f"no varlen: it takes heads of size 8 to 256 in steps of 8, not {size}" in choice.reason
    )


def test_flex_runs_inside_a_compiled_layer_that_leaves_attention_out() -> None:
    torch.compiler.reset()
    outside = torch.compiler.disable(attention)

    def layer(qkv: Tensor, documents: Documents, window: int | None) -> Tensor:
        return outside(*(2 * qkv).unbind(1), documents, True, window, "flex") + 1

    counter = CompileCounterWithBackend("eager")
    compiled, qkv = torch.compile(layer, backend=counter), projected(60).detach()
    for lengths in ([60], [20, 40], [1] * 60):
        for window in WINDOWS:
            documents = Documents(lengths)
            assert_close(compiled(qkv, documents, window), layer(qkv, documents, window))
        if lengths == [60]:
            compiles = counter.frame_count
    assert counter.frame_count == compiles

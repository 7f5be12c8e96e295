"""A back end is tried before it is chosen: a kernel that lacks something is passed over, with the reason."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_standins import FA2, FA3, FA4, VARLEN, Calls, Machine, varlen_attn
from test_attention import projected
from torch import Tensor

from clm_detour.model.attention import attention, choose_backend, flex, portable, varlen
from clm_detour.model.documents import Documents
from clm_detour.utils.errors import UserError


class Refuse(torch.autograd.Function):
    """A build without a backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise RuntimeError("This flash attention build does not support backward.\nand a stack")


def no_window(out: Tensor, window_size: tuple[int, int], **_: Any) -> Tensor:
    if window_size[0] >= 0:
        raise RuntimeError("This flash attention build does not support local attention.")
    return out


def no_causal_window(out: Tensor, causal: bool, window_size: tuple[int, int], **_: Any) -> Tensor:
    if causal and window_size[0] >= 0:
        raise RuntimeError("no causal window")
    return out


def no_varlen(out: Tensor, **_: Any) -> Tensor:
    raise RuntimeError("This flash attention build does not support varlen.")


def no_backward(out: Tensor, **_: Any) -> Tensor:
    return Refuse.apply(out)


def not_finite(out: Tensor, **_: Any) -> Tensor:
    return out / 0


def not_deterministic(out: Tensor, deterministic: bool, **_: Any) -> Tensor:
    assert not deterministic, "deterministic backward not supported on SM 12.0"
    return out


def build(fault: Callable[..., Tensor], whole: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A build of FlashAttention 3 with a fault."""
    whole = whole or functools.partial(Calls.three, Calls())

    @functools.wraps(whole)
    def run(*args: Any, **kwargs: Any) -> Any:
        return fault(whole(*args, **kwargs), **kwargs)

    return run


FAULTS = {
    no_window: "This flash attention build does not support local attention",
    no_causal_window: "no causal window",
    no_varlen: "This flash attention build does not support varlen",
    no_backward: "This flash attention build does not support backward. and a stack",
    not_finite: "its results are not finite",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_build_that_lacks_something_is_passed_over(machine: Machine, fault: Callable[..., Tensor]) -> None:
    machine.has_gpu(9)
    machine.install(FA3, build(fault))
    machine.install(VARLEN, varlen_attn)
    reason = f"FlashAttention 3 does not work here ({FAULTS[fault]})"
    choice = choose_backend()
    assert choice.name == "varlen"
    assert f"no flash: {reason}" in choice.reason
    with pytest.raises(UserError) as error:
        choose_backend("flash")
    assert reason in str(error.value)
    machine.install(FA2, Calls().two)
    choice = choose_backend()
    assert choice.name == "flash"
    assert "FlashAttention 2" in choice.reason
    attention(*projected(9, torch.bfloat16, size=16).unbind(1), Documents([9]), False, 3, "flash")


def test_each_other_kernel_is_tried_too(machine: Machine) -> None:
    def refuse(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    def varlen_that_refuses(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1)):
        refuse()

    machine.install(VARLEN, varlen_that_refuses)
    machine.patch.setattr(flex, "_attend_apart", refuse)
    choice = choose_backend()
    assert choice.name == "portable"
    for name, kernel in (("varlen", "torch's varlen_attn"), ("flex", "torch's flex_attention")):
        assert f"no {name}: {kernel} does not work here (CUDA error: no kernel image" in choice.reason


def test_it_is_tried_once_with_two_documents_in_both_directions(machine: Machine) -> None:
    calls = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append((len(kwargs["cu_seqlens_q"]) - 1, kwargs["causal"], kwargs["window_size"][0] > 0))
        return whole(*args, **kwargs)

    whole = functools.partial(Calls.three, Calls())
    machine.has_gpu(9)
    machine.install(FA3, functools.wraps(whole)(counted))
    for _ in range(3):
        assert choose_backend().name == choose_backend("flash").name == "flash"
    assert calls == [(2, False, True), (2, True, True)]


def test_the_deterministic_mode_is_tried_apart(machine: Machine) -> None:
    machine.has_gpu(10)
    machine.install(FA4, build(not_deterministic_pair, functools.partial(Calls.four, Calls())))
    assert choose_backend().name == "flash"
    torch.use_deterministic_algorithms(True)
    try:
        choice = choose_backend()
    finally:
        torch.use_deterministic_algorithms(False)
    assert choice.name == "flex"
    assert "deterministic backward not supported on SM 12.0" in choice.reason
    assert choose_backend().name == "flash"


def not_deterministic_pair(outputs: tuple[Tensor, None], **kwargs: Any) -> tuple[Tensor, None]:
    return not_deterministic(outputs[0], **kwargs), None


def test_full_memory_is_no_fault_of_the_kernel(machine: Machine) -> None:
    full = [True]

    def kernel(*args: Any, **kwargs: Any) -> Any:
        if full.pop() if full else False:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(*args, **kwargs)

    whole = Calls().two
    machine.install(FA2, functools.wraps(whole)(kernel))
    with pytest.raises(torch.OutOfMemoryError):
        choose_backend()
    assert choose_backend().name == "flash"


def test_the_attempt_leaves_no_trace_whatever_surrounds_it(machine: Machine) -> None:
    machine.install(VARLEN, varlen_attn)
    state = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert varlen.unavailable() is None
        assert torch.is_inference_mode_enabled()
    assert torch.equal(torch.get_rng_state(), state)


def test_no_kernel_is_tried_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a CPU is not asked for its CUDA capability, and nothing is compiled."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(portable, "attend", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", None)
    assert [choose_backend(dtype=dtype).name for dtype in (torch.float32, torch.float16)] == ["portable"] * 2

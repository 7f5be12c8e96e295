"""A kernel is handed what the real one takes, and its stand-in refuses what the real one refuses.

The argument lists are recorded in `kernel_standins`. `make kernels` unpacks the FlashAttention 4 that is
named there, whose source is compared with its list; so is `varlen_attn` where the installed torch has it.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_standins import FA2, FA3, FA4, VARLEN, Calls, Machine, varlen_attn
from test_attention import projected

from clm_detour.model.attention import attention, flash
from clm_detour.model.attention.varlen import find
from clm_detour.model.documents import Documents

FA4_SOURCE = Path(__file__).parents[2] / "build" / "kernels" / "flash_attn" / "cute" / "interface.py"
RECORDED: dict[str, tuple[int, Callable[..., Any]]] = {
    FA2: (8, Calls.two),
    FA3: (9, Calls.three),
    FA4: (10, Calls.four),
    VARLEN: (8, varlen_attn),
}


def handed_over(machine: Machine, module: str) -> inspect.BoundArguments:
    """The last call of a back end, bound to the recorded argument list. It raises if they do not fit."""
    major, function = RECORDED[module]
    whole = function if module == VARLEN else functools.partial(function, Calls())
    bound: list[inspect.BoundArguments] = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        bound.append(inspect.signature(whole).bind(*args, **kwargs))
        return whole(*args, **kwargs)

    machine.has_gpu(major)
    machine.install(module, functools.wraps(whole)(spy))
    qkv = projected(40, torch.bfloat16, size=64)
    name = "varlen" if module == VARLEN else "flash"
    attention(*qkv.unbind(1), Documents([30, 10]), True, 8, name).float().sum().backward()
    return bound[-1]


@pytest.mark.parametrize("module", RECORDED)
def test_a_call_fits_the_recorded_arguments(machine: Machine, module: str) -> None:
    arguments = handed_over(machine, module).arguments
    assert tuple(arguments["window_size"]) == (8, 0)
    if module != VARLEN:
        assert arguments["causal"] is True


@pytest.mark.skipif(not FA4_SOURCE.exists(), reason="`make kernels` has not been run")
def test_the_arguments_of_flashattention_4_are_the_recorded_ones() -> None:
    (function,) = [
        node
        for node in ast.parse(FA4_SOURCE.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "flash_attn_varlen_func"
    ]
    given = function.args
    assert [argument.arg for argument in given.args] == list(inspect.signature(Calls.four).parameters)[1:]
    defaults = [ast.literal_eval(default) for default in given.defaults]
    assert defaults == list(Calls.four.__defaults__)


def test_torchs_own_function_takes_what_it_is_handed(machine: Machine) -> None:
    real = RealVarlen.function
    if real is None:
        pytest.skip(f"torch {torch.__version__} has no varlen_attn with a window")
    call = handed_over(machine, VARLEN)
    bound = inspect.signature(real).bind(*call.args, **call.kwargs).arguments
    assert list(bound)[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]


class RealVarlen:
    """torch's function, found before a stand-in takes its place."""

    find.cache_clear()
    function = find()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda q: q.float(), "only fp16 and bf16"),
        (lambda q: q.half(), "the same dtype"),
        (lambda q: q.to("meta"), "the same device"),
        (lambda q: q.mT.contiguous().mT, "last dimension must be contiguous"),
        (lambda q: torch.cat([q.new_zeros(1), q.flatten()])[1:].view_as(q), "multiple of 16 bytes"),
        (lambda q: torch.cat([q, q[..., :4]], -1)[..., :-4], "rows must be aligned"),
        (lambda q: q[:-1], "the same shape"),
    ],
)
def test_a_stand_in_refuses_what_a_kernel_refuses(
    machine: Machine, spoil: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    machine.install(FA2, Calls().two)
    q, k, v = projected(9, torch.bfloat16, size=16).detach().unbind(1)
    attention(q, k, v, Documents([9]), False, 3, "flash")
    kernel = flash.find(8, False)
    assert isinstance(kernel, flash.Kernel)
    with pytest.raises(AssertionError, match=message):
        flash._run(kernel, spoil(q), k, v, Documents([9]), False, 3)


def test_a_stand_in_refuses_other_boundaries(machine: Machine) -> None:
    q, k, v = projected(9, torch.bfloat16, size=16).detach().unbind(1)
    right = torch.tensor([0, 4, 9], dtype=torch.int32)
    varlen_attn(q, k, v, right, right, 5, 5)
    for wrong, message in (
        (right.long(), "int32"),
        (torch.stack([right, right], 1)[:, 0], "contiguous"),
        (right[:2], "end at the number of tokens"),
        (right[:1], "a document"),
    ):
        with pytest.raises(AssertionError, match=message):
            varlen_attn(q, k, v, wrong, wrong, 5, 5)

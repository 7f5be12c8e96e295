"""Cross-entropy with its gradient follows the definition on every CPU, with the same bits for any threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from model_reference import assert_close
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from clm_detour.model.compiling import cannot_compile
from clm_detour.model.cpu import softmax
from clm_detour.model.cpu.softmax import add_rows, loss_and_gradient
from clm_detour.model.loss import summed_cross_entropy
from clm_detour.utils.errors import UserError

REASON = softmax.unavailable()
compiles_here = pytest.mark.skipif(REASON is not None, reason=str(REASON))
DTYPES = [torch.float32, torch.bfloat16]
LEVELS = ["AVX512", "AVX2", "DEFAULT"]  # torch's names


def problem(
    positions: int, entries: int, dtype: torch.dtype, spread: float = 3.0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(positions * entries)
    logits = spread * torch.randn(positions, entries, generator=generator)
    bias = torch.randn(entries, generator=generator)
    return logits.to(dtype), bias, torch.randint(0, entries, (positions,), generator=generator)


def exact(logits: Tensor, bias: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor]:
    """In fp64, by autograd."""
    leaf = logits.double().requires_grad_()
    total = F.cross_entropy(leaf if bias is None else leaf + bias.double(), labels, reduction="sum")
    return total.detach(), torch.autograd.grad(total, leaf)[0]


def check(logits: Tensor, bias: Tensor | None, labels: Tensor) -> None:
    expected_loss, expected = exact(logits, bias, labels)
    dtype = logits.dtype
    largest = logits.abs().max().float() + (0 if bias is None else bias.abs().max().float())
    rounding = 2.0**-23 * float(largest)  # of logit + bias
    loss, grad = loss_and_gradient(logits, bias, labels)
    assert (loss.dtype, grad.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=1e-6, atol=len(labels) * (1e-6 + rounding))
    rtol = (4e-3 if dtype == torch.bfloat16 else 2e-6) + 2 * rounding
    torch.testing.assert_close(grad.double(), expected, rtol=rtol, atol=2e-7)


@settings(max_examples=100, deadline=None)
@given(
    positions=st.integers(1, 9),
    entries=st.integers(1, 200),
    dtype=st.sampled_from(DTYPES),
    biased=st.booleans(),
    spread=st.sampled_from([0.0, 1.0, 30.0]),
)
def test_is_the_definition(
    positions: int, entries: int, dtype: torch.dtype, biased: bool, spread: float
) -> None:
    logits, bias, labels = problem(positions, entries, dtype, spread)
    check(logits, bias if biased else None, labels)


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A CPU of fewer instructions, as far as this one goes."""
    here = torch.backends.cpu.get_cpu_capability()
    if here not in LEVELS[: LEVELS.index(request.param) + 1] and request.param != LEVELS[-1]:
        pytest.skip(f"this CPU has {here}, not {request.param}")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    softmax._library.cache_clear()
    assert softmax.unavailable() is None
    yield request.param
    softmax._library.cache_clear()


@compiles_here
@pytest.mark.parametrize("dtype", DTYPES)
def test_is_the_definition_with_any_instructions(level: str, dtype: torch.dtype) -> None:
    check(*problem(5, 50_368, dtype))


@compiles_here
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_compiled_gradient_is_written_over_the_logits(dtype: torch.dtype) -> None:
    logits, bias, labels = problem(3, 90, dtype)
    assert loss_and_gradient(logits, bias, labels)[1].data_ptr() == logits.data_ptr()


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_layout_and_precision_of_what_comes_in(dtype: torch.dtype) -> None:
    logits, bias, labels = problem(40, 90, dtype)
    check(logits.T.contiguous().T, bias, labels)
    check(logits.clone(), bias.bfloat16(), labels)
    check(logits.clone(), torch.stack([bias, -bias], 1)[:, 0], labels)
    check(logits.clone(), bias, torch.stack([labels, -labels], 1)[:, 0])


def test_defaults_of_torch_change_nothing() -> None:
    problem_here = problem(40, 90, torch.float32)
    torch.set_default_dtype(torch.float64)
    try:
        check(*problem_here)
    finally:
        torch.set_default_dtype(torch.float32)
    logits, bias, labels = problem_here
    with torch.device("meta"):
        loss, _ = loss_and_gradient(logits, bias, labels)
    assert loss.device.type == "cpu"


def test_shapes_that_do_not_fit_are_refused() -> None:
    logits, bias, labels = problem(4, 9, torch.float32)
    for wrong in ((logits, bias, labels[:3]), (logits, bias[:8], labels), (logits, bias, labels.int())):
        with pytest.raises(ValueError, match="not"):
            loss_and_gradient(*wrong)


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "_library", lambda: "there is no C++ compiler")


@pytest.mark.parametrize("dtype", DTYPES)
def test_is_the_definition_without_a_compiler(without_compiler: None, dtype: torch.dtype) -> None:
    check(*problem(5, 777, dtype))


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch compiles there, compiled for a CPU."""
    if reason := cannot_compile("cpu"):
        pytest.skip(reason)
    torch.compiler.reset()
    monkeypatch.setattr(softmax, "_way", lambda logits: softmax.fused())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.slow
def test_is_the_definition_as_a_gpu_computes_it(as_on_a_gpu: None, dtype: torch.dtype) -> None:
    for positions in (5, 4, 7, 1):  # torch compiles it for 5, for any number, and for 1
        logits, bias, labels = problem(positions, 777, dtype)
        check(logits, bias, labels)
    check(logits, None, labels)


def test_a_gpu_compiles_it_for_any_number_of_positions(as_on_a_gpu: None) -> None:
    counter = CompileCounter()
    fused, made = softmax.fused(counter), []
    for positions in range(2, 30):
        fused(*problem(positions, 90, torch.float32))
        made.append(counter.frame_count)
    assert made == [1] + [2] * 27


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_added_up_in_the_precision_of_the_sum(dtype: torch.dtype) -> None:
    rows, start, _ = problem(300, 5000, dtype)
    for precision, bound in ((torch.float32, 1e-4), (torch.float64, 1e-12)):
        total = start.to(precision)
        expected = total.double() + rows.double().sum(0)
        add_rows(total, rows)
        assert total.dtype == precision
        torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(70, 5000), (200_000, 5)])
def test_any_number_of_threads_gives_the_same_bits(shape: tuple[int, int], dtype: torch.dtype) -> None:
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            logits, bias, labels = problem(*shape, dtype)
            loss, grad = loss_and_gradient(logits, bias, labels)
            add_rows(bias, grad)
            found.append((loss, grad, bias))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_entries_that_are_ruled_out_get_no_gradient(dtype: torch.dtype) -> None:
    logits, _, labels = problem(3, 90, dtype)
    logits[:, 50:] = -torch.inf
    labels.clamp_max_(49)
    loss, grad = loss_and_gradient(logits, None, labels)
    assert loss.isfinite()
    assert (grad[:, 50:] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_hidden(dtype: torch.dtype, bad: float) -> None:
    logits, bias, labels = problem(3, 90, dtype)
    logits[1, 7] = bad
    loss, grad = loss_and_gradient(logits, bias, labels)
    assert loss.isnan()
    assert grad[1].isnan().any()
    assert grad[[0, 2]].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, -1])
def test_every_nan_stays_one(dtype: torch.dtype, bits: int) -> None:
    logits, bias, labels = problem(3, 90, dtype)
    bias.view(torch.int32)[7] = bits
    assert loss_and_gradient(logits, bias, labels)[1].isnan().all()


def test_a_label_outside_the_vocabulary_is_refused() -> None:
    hidden, weight = torch.zeros(2, 4, requires_grad=True), torch.zeros(9, 4)
    for label in (9, -1):
        with pytest.raises(
            UserError, match=f"A label is {label}, but the vocabulary has 9 entries, 0 to 8; encode"
        ):
            summed_cross_entropy(hidden, weight, None, torch.tensor([3, label]))


def test_labels_that_are_no_int64_are_refused() -> None:
    hidden, weight = torch.zeros(2, 4, requires_grad=True), torch.zeros(9, 4)
    with pytest.raises(UserError, match=r"labels are torch\.int32; give token ids as torch\.long"):
        summed_cross_entropy(hidden, weight, None, torch.tensor([3, 1], dtype=torch.int32))


def test_torch_compile_gives_the_same() -> None:
    logits, bias, labels = problem(5, 300, torch.float32)
    for mine, compiled in zip(
        loss_and_gradient(logits.clone(), bias, labels),
        torch.compile(loss_and_gradient)(logits.clone(), bias, labels),
        strict=True,
    ):
        assert_close(compiled, mine, 1e-5)

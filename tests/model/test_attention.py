"""The back ends compute the definition of attention, for any documents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_reference import assert_close, eager_attention

from clm_detour.model.attention import BACKENDS, attention
from clm_detour.model.documents import Documents
from clm_detour.utils.errors import UserError

WINDOWS = [None, 4, 64]
ROWS = {  # documents for a window of w
    "one token": lambda w: [1],
    "the window": lambda w: [w],
    "the window + 1": lambda w: [w + 1],
    "the window + 2": lambda w: [w + 2, 1],
    "both sides": lambda w: [2 * w + 1, 1],
    "one longer than half": lambda w: [w, 5 * w + 1, 3],
    "one document": lambda w: [6 * w + 5],
    "many": lambda w: [1] * 40,
    "mixed": lambda w: [3 * w, 3 * w + 1, 1, w, 3, 4 * w],
}
DOCUMENTS = st.lists(st.one_of(st.integers(1, 12), st.integers(1, 90)), min_size=1, max_size=12)
A_WINDOW = st.one_of(st.none(), st.integers(1, 40))


def flex_trains_here() -> bool:
    qkv = projected(1)
    try:
        attention(*qkv.unbind(1), Documents([1]), False, None, "flex")
    except UserError:
        return False
    return True


def projected(
    total: int, dtype: torch.dtype = torch.float32, heads: int = 2, size: int = 12, device: str = "cpu"
) -> torch.Tensor:
    """(T, 3, H, D), as a projection gives them: queries, keys and values are views with gaps."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(total, 3, heads, size, generator=generator) * 2
    return qkv.to(device, dtype).requires_grad_()


def check(
    lengths: list[int],
    causal: bool,
    window: int | None,
    backend: str,
    tolerance: float = 1e-5,
    ours: torch.Tensor | None = None,
) -> None:
    """Values and gradients are those of the definition, computed in fp32 on the CPU."""
    ours = projected(sum(lengths)) if ours is None else ours
    reference = ours.detach().float().cpu().requires_grad_()
    out = attention(*ours.unbind(1), Documents(lengths, ours.device), causal, window, backend)
    expected = eager_attention(*reference.unbind(1), lengths, causal, window)
    assert out.dtype == ours.dtype
    assert_close(out.float().cpu(), expected, tolerance)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    if ours.requires_grad:
        (out.float().cpu() * weights).sum().backward()
        (expected * weights).sum().backward()
        assert_close(ours.grad.float().cpu(), reference.grad, tolerance)


@pytest.fixture(params=["portable", "flex"])
def backend(request: pytest.FixtureRequest) -> str:
    """One that runs on any machine, and trains there."""
    if request.param == "flex" and not flex_trains_here():
        pytest.skip(f"torch {torch.__version__} has no backward of FlexAttention on a CPU")
    return request.param


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("row", ROWS)
def test_equals_the_definition(backend: str, row: str, causal: bool, window: int | None) -> None:
    check(ROWS[row](window or 4), causal, window, backend)


@settings(max_examples=60, deadline=None)
@given(lengths=DOCUMENTS, causal=st.booleans(), window=A_WINDOW)
def test_portable_equals_the_definition_for_any_documents(
    lengths: list[int], causal: bool, window: int | None
) -> None:
    check(lengths, causal, window, "portable")


@settings(max_examples=15, deadline=None)
@given(lengths=DOCUMENTS, causal=st.booleans(), window=A_WINDOW)
def test_flex_equals_the_definition_for_any_documents(
    lengths: list[int], causal: bool, window: int | None
) -> None:
    with torch.no_grad():  # the backward is not in every torch
        check(lengths, causal, window, "flex", ours=projected(sum(lengths)).detach())


@pytest.mark.parametrize("lengths", [[1024], [700, 324], [130] * 8], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_portable_equals_the_definition_at_the_real_window(lengths: list[int], causal: bool) -> None:
    check(lengths, causal, 64, "portable")
    check(lengths, causal, None, "portable")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_is_finite_and_near(
    backend: str, dtype: torch.dtype, causal: bool, window: int | None
) -> None:
    lengths = [33, 1, 7, 50]
    qkv = projected(sum(lengths), dtype)
    out = attention(*qkv.unbind(1), Documents(lengths), causal, window, backend)
    expected = eager_attention(*qkv.detach().float().unbind(1), lengths, causal, window)
    assert out.dtype == dtype
    assert_close(out.float(), expected, 2e-2)
    out.float().sum().backward()
    assert qkv.grad.isfinite().all()


@pytest.mark.parametrize("name", BACKENDS)
def test_no_documents_give_no_tokens(name: str) -> None:
    qkv = torch.zeros(0, 3, 2, 8)
    out = attention(*qkv.unbind(1), Documents([]), False, 4, name)
    assert out.shape == (0, 2, 8)


def test_local_layers_cost_tokens_times_window() -> None:
    """A row of 2^17 tokens would need 64 GiB of mask and scores if it cost tokens squared."""
    qkv = torch.zeros(1 << 17, 3, 1, 2)
    out = attention(*qkv.unbind(1), Documents([1 << 17]), False, 8, "portable")
    assert out.shape == (1 << 17, 1, 2)


@pytest.fixture(params=["flash", "varlen", "flex", "portable"])
def on_cuda(request: pytest.FixtureRequest) -> str:
    """One that runs on this GPU."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if reason := BACKENDS[request.param].unavailable():
        pytest.skip(reason)
    return request.param


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("causal", [False, True])
def test_equals_the_definition_on_cuda(on_cuda: str, causal: bool, window: int | None) -> None:
    for row in ROWS.values():
        lengths = row(window or 4)
        ours = projected(sum(lengths), torch.bfloat16, heads=3, size=64, device="cuda")
        check(lengths, causal, window, on_cuda, 2e-2, ours)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("causal", [False, True])
def test_deterministic_mode_repeats_every_bit_on_cuda(on_cuda: str, causal: bool, window: int | None) -> None:
    lengths = [700, 1, 130, 2000]
    torch.use_deterministic_algorithms(True)
    try:
        grads = []
        for _ in range(3):
            qkv = projected(sum(lengths), torch.bfloat16, heads=3, size=64, device="cuda")
            documents = Documents(lengths, "cuda")
            attention(*qkv.unbind(1), documents, causal, window, on_cuda).square().sum().backward()
            grads.append(qkv.grad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


@pytest.mark.parametrize("on_cuda", ["flex", "portable"], indirect=True)
def test_fp32_is_exact_on_cuda(on_cuda: str) -> None:
    lengths = [300, 1, 130]
    for window in WINDOWS:
        check(lengths, False, window, on_cuda, 1e-4, projected(sum(lengths), size=64, device="cuda"))

"""The back ends compute the definition of attention, for any documents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_reference import assert_close, eager_attention

from clm_detour.errors import UserError
from clm_detour.model.attention import BACKENDS, attention, choose_backend
from clm_detour.model.documents import Documents

WINDOW = 5
LENGTHS = [
    [1],
    [WINDOW],
    [WINDOW + 1],
    [WINDOW + 2],
    [2 * WINDOW + 1, 1],
    [1] * 40,
    [1, WINDOW, WINDOW + 1, 60, 3],
    [200],
    [40, 41, 40, 39, 7, 160, 1],
]


def projected(total: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """(T, 3, H, D), as a projection gives them: queries, keys and values are views with gaps."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(total, 3, 2, 8, generator=generator) * 2).to(dtype).requires_grad_()


def check(lengths: list[int], causal: bool, window: int | None, backend: str = "portable") -> None:
    ours, reference = projected(sum(lengths)), projected(sum(lengths))
    documents = Documents.of_lengths(lengths)
    out = attention(*ours.unbind(1), documents, causal, window, backend)
    expected = eager_attention(*reference.unbind(1), lengths, causal, window)
    assert_close(out, expected)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_close(ours.grad, reference.grad)


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_portable_equals_the_definition(lengths: list[int], causal: bool, window: int | None) -> None:
    check(lengths, causal, window)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.one_of(st.integers(1, 12), st.integers(1, 90)), min_size=1, max_size=12),
    causal=st.booleans(),
    window=st.one_of(st.none(), st.integers(1, 40)),
)
def test_portable_equals_the_definition_for_any_documents(
    lengths: list[int], causal: bool, window: int | None
) -> None:
    check(lengths, causal, window)


@pytest.mark.parametrize("lengths", [[1024], [700, 324], [130] * 8], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_portable_equals_the_definition_at_the_real_window(lengths: list[int], causal: bool) -> None:
    check(lengths, causal, 64)
    check(lengths, causal, None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_is_finite_and_near(dtype: torch.dtype, causal: bool, window: int | None) -> None:
    lengths = [33, 1, 7, 50]
    qkv = projected(sum(lengths), dtype)
    out = attention(*qkv.unbind(1), Documents.of_lengths(lengths), causal, window, "portable")
    expected = eager_attention(*qkv.detach().float().unbind(1), lengths, causal, window)
    assert out.dtype == dtype
    assert_close(out.float(), expected, 2e-2)
    out.float().sum().backward()
    assert qkv.grad.isfinite().all()


def test_no_documents_give_no_tokens() -> None:
    qkv = torch.zeros(0, 3, 2, 8)
    out = attention(*qkv.unbind(1), Documents.of_lengths([]), False, WINDOW, "portable")
    assert out.shape == (0, 2, 8)


def test_local_layers_cost_tokens_times_window() -> None:
    """A row of 2^17 tokens would need 64 GiB of mask and scores if it cost tokens squared."""
    qkv = torch.zeros(1 << 17, 3, 1, 2)
    out = attention(*qkv.unbind(1), Documents.of_lengths([1 << 17]), False, 8, "portable")
    assert out.shape == (1 << 17, 1, 2)


def test_the_choice_has_a_name_and_a_reason() -> None:
    for name in (None, "auto", "portable"):
        choice = choose_backend(name)
        assert choice.name in BACKENDS
        assert choice.reason


def test_an_unknown_back_end_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'flush' is not known; use one of auto, .*portable"):
        choose_backend("flush")

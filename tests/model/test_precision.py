"""The precision that is computed in is the one asked for, or a message says why not."""

from __future__ import annotations

import pytest
import torch
from model_reference import assert_close, some_labels, tiny_model, tokens

from clm_detour.model import precision
from clm_detour.model.precision import computed_precision, fp32_products, set_tf32

CPU = torch.device("cpu")


def loss_under_autocast() -> torch.Tensor:
    ids = tokens(20)[None]
    with torch.autocast("cpu", torch.bfloat16):
        return tiny_model()(ids, labels=some_labels(ids)).loss


def test_where_bf16_does_not_pay_the_network_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tokens(20)[None]
    exact = tiny_model()(ids, labels=some_labels(ids)).loss
    assert loss_under_autocast() != exact
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: False)
    assert_close(loss_under_autocast(), exact, 1e-7)
    assert computed_precision("bf16", CPU)[0] == "fp32"
    assert "slowly" in computed_precision("bf16", CPU)[1]


def test_elsewhere_what_is_asked_for_is_computed() -> None:
    for asked in ("bf16", "fp32"):
        assert computed_precision(asked, CPU) == (asked, "asked for")
        assert computed_precision(asked, torch.device("cuda")) == (asked, "asked for")


def test_products_are_computed_as_asked_within_a_block_and_as_before_after_it() -> None:
    matmul = torch.backends.cuda.matmul
    for before in (False, True):
        set_tf32(before)
        try:
            for asked in (False, True):
                with fp32_products(asked):
                    assert (matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (asked, asked)
                assert matmul.allow_tf32 is before
        finally:
            set_tf32(False)


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="this torch has the older flag alone"
)
def test_a_setting_by_the_newer_flag_alone_is_respected_after_a_block() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with fp32_products(False):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        set_tf32(False)


def test_tf32_is_computed_where_a_gpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    assert computed_precision("tf32", CPU) == ("fp32", "tf32 was asked for, but a CPU has no TF32")
    for capability, computed in (((9, 0), "tf32"), ((7, 5), "fp32")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, it=capability: it)
        assert computed_precision("tf32", gpu)[0] == computed

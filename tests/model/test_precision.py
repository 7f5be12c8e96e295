"""On a CPU without fast bf16 products autocast is not followed, and this is said."""

from __future__ import annotations

import pytest
import torch
from model_reference import assert_close, some_labels, tiny_model, tokens

from clm_detour.model import precision
from clm_detour.model.precision import computed_precision

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

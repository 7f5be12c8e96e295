"""Tests that speak of bf16 autocast mean it, also on a CPU where it does not pay."""

from __future__ import annotations

import pytest

from clm_detour.model import precision


@pytest.fixture(autouse=True)
def bf16_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: True)

"""Tests that speak of bf16 autocast mean it, also on a CPU where it does not pay; and a GPU for those that need one pretended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernel_standins import Machine, forget

from clm_detour.model import precision


@pytest.fixture(autouse=True)
def bf16_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: True)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    forget()
    yield Machine(monkeypatch)
    forget()

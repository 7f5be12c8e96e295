"""Use bf16 autocast in tests on any CPU, and pretend a GPU for tests that need one."""

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

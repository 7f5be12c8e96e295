"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora, tasks and tokenizer (see docs/real-data.md); tests that need it skip without it."""
    folder = Path(os.environ.get("CLM_DETOUR_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set CLM_DETOUR_DATA)")
    return folder

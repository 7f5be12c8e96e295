"""Fixtures for what reads prepared data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clm_detour.data.objectives import Vocabulary
from clm_detour.data.packing import write_packing
from clm_detour.data.shards import ShardWriter

FINGERPRINT = "f" * 64
VOCABULARY = Vocabulary(1000, pad=0, mask=1, special=tuple(range(8)))


@pytest.fixture(scope="session")
def write_source() -> Callable[..., Path]:
    """A function that writes packed rows of random documents, of 2 to 29 tokens, and gives their folder."""

    def write(
        folder: Path, documents: int, row_length: int = 16, seed: int = 0, shard_tokens: int = 2000
    ) -> Path:
        rng = np.random.default_rng(seed)
        writer = ShardWriter(folder, FINGERPRINT, VOCABULARY.size, shard_tokens)
        for _ in range(documents):
            writer.add(rng.integers(8, VOCABULARY.size, rng.integers(2, 30)))
        writer.finish({}, {})
        write_packing(folder, row_length, seed=1)
        return folder

    return write


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """That of the documents."""
    return VOCABULARY

"""Fixtures for what reads prepared data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from reading import with_words, write_shards

from clm_detour.data.objectives import Vocabulary
from clm_detour.data.packing import write_packing

VOCABULARY = with_words(Vocabulary(1000, pad=0, mask=1, special=tuple(range(8))))


@pytest.fixture(scope="session")
def write_source() -> Callable[..., Path]:
    """A function that writes packed rows of random documents, of 2 to 29 tokens, and gives their folder."""

    def write(
        folder: Path, documents: int, row_length: int = 16, seed: int = 0, shard_tokens: int = 2000
    ) -> Path:
        rng = np.random.default_rng(seed)
        lengths = (rng.integers(2, 30) for _ in range(documents))
        some = (rng.integers(8, VOCABULARY.size, length) for length in lengths)
        write_shards(folder, some, VOCABULARY.size, shard_tokens)
        write_packing(folder, row_length, seed=1)
        return folder

    return write


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """That of the documents."""
    return VOCABULARY

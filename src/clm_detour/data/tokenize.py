"""Texts -> token ids, batch by batch, on all cores.

The tokenizers library spreads a batch over its own threads and releases Python's lock, so the next batches
are encoded while this one is written. Memory is bounded by `AHEAD + 1` batches of `BATCH_CHARACTERS`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from clm_detour.data.tokenizer import Tokenizer

BATCH_CHARACTERS = 2**21
AHEAD = 2  # two batches at once keep the cores busy while the last document of the first is finished


def tokenize(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[tuple[str, np.ndarray]]:
    """Each text with its ids `[CLS] ... [SEP]` (uint32), in order."""
    waiting: deque[tuple[list[str], Future[list[np.ndarray]]]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        for batch in _batches(texts):
            waiting.append((batch, pool.submit(tokenizer.encode_batch, batch)))
            if len(waiting) > AHEAD:
                yield from _pairs(*waiting.popleft())
        while waiting:
            yield from _pairs(*waiting.popleft())


def _pairs(batch: list[str], encoded: Future[list[np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    return zip(batch, encoded.result(), strict=True)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch

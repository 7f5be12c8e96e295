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
    """Each text with its ids `[CLS] ... [SEP]` (uint32), in order; a text that comes again right away is encoded once."""
    waiting: deque[tuple[list[list[str]], Future[list[np.ndarray]]]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        for batch in _batches(texts):
            waiting.append((batch, pool.submit(tokenizer.encode_batch, [copies[0] for copies in batch])))
            if len(waiting) > AHEAD:
                yield from _pairs(*waiting.popleft())
        while waiting:
            yield from _pairs(*waiting.popleft())


def _pairs(batch: list[list[str]], encoded: Future[list[np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    for copies, ids in zip(batch, encoded.result(), strict=True):
        for text in copies:
            yield text, ids


def _batches(texts: Iterable[str]) -> Iterator[list[list[str]]]:
    """Lists of texts, each with the copies that follow it."""
    batch: list[list[str]] = []
    characters = 0
    for text in texts:
        if batch and text is batch[-1][0]:
            batch[-1].append(text)
            continue
        batch.append([text])
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch

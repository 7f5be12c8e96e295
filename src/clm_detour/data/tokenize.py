"""Texts -> token ids, batch by batch, on one core or on all.

The tokenizers library spreads a batch over its own threads and releases Python's lock, so with several threads the next batches are encoded
while this one is written. Memory is bounded by `AHEAD + 1` batches, at about a hundred bytes a character.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np

from clm_detour.data.tokenizer import Tokenizer

BATCH_CHARACTERS = 2**18  # for each thread
MOST_CHARACTERS = 2**21
AHEAD = 2  # two batches at once keep the cores busy while the last document of the first is finished


class HasText(Protocol):
    """Anything with a text."""

    @property
    def text(self) -> str:
        """What is tokenised."""


T = TypeVar("T", bound=HasText)


def tokenize(
    documents: Iterable[T], tokenizer: Tokenizer, threads: Callable[[], int]
) -> Iterator[list[tuple[T, np.ndarray]]]:
    """Batches of documents, in order, each with its ids `[CLS] ... [SEP]` (uint32).

    Args:
        threads: how many may be used now; asked before each batch.
    """
    waiting: deque[tuple[list[T], Future[list[np.ndarray]]]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        for batch in batches(documents, threads):
            texts = [document.text for document in batch]
            waiting.append((batch, pool.submit(tokenizer.encode_batch, texts)))
            while len(waiting) > (AHEAD if threads() > 1 else 0):
                yield pairs(*waiting.popleft())
        while waiting:
            yield pairs(*waiting.popleft())


def pairs(batch: list[T], encoded: Future[list[np.ndarray]]) -> list[tuple[T, np.ndarray]]:
    """A batch that has been encoded."""
    return list(zip(batch, encoded.result(), strict=True))


def batches(documents: Iterable[T], threads: Callable[[], int]) -> Iterator[list[T]]:
    """Lists of documents, larger for more threads."""
    batch: list[T] = []
    characters, enough = 0, 0
    for document in documents:
        if not batch:
            enough = min(BATCH_CHARACTERS * threads(), MOST_CHARACTERS)
        batch.append(document)
        characters += len(document.text)
        if characters >= enough:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


SPLITS = ("train", "held_out")


def is_held_out(text: str, held_out: float) -> bool:
    """Whether a document belongs to the held-out split: a matter of its text alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < held_out * 2**64

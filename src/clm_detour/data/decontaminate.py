"""Finding runs of words that a document shares with the texts of an evaluation.

Words are runs of letters and digits, compared without case and without regard to how a character is encoded
(NFKC). A run is `n` words, 13 as for GPT-3 (arXiv 2005.14165, appendix C). Only a hash of 64 bits is kept of
each run, so a false match is practically impossible and no text is stored. Evaluation texts of fewer than `n`
words are not searched for. The cost is about half a microsecond for each word, and 16 to 24 bytes for each
run of the evaluation.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

BLOCK = 2**20  # characters; a long text is processed in blocks to bound the memory
WHITE_SPACE = re.compile(r"\s")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio, as in Fibonacci hashing


class SharedRuns:
    """The word runs of some texts, to be searched for in other texts.

    Args:
        texts: Texts of the evaluation.
        n: Number of words in a run.
    """

    def __init__(self, texts: Iterable[str], n: int):
        self.n = n
        found = [np.unique(hashes) for text in texts for hashes in runs_of_text(text, n)]
        self.runs = np.unique(np.concatenate([np.empty(0, np.uint64), *found]))
        bits = max(10, (8 * len(self.runs)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._possible = np.zeros(1 << bits, dtype=bool)  # by a hash's first bits; excludes nearly all runs
        self._possible[self.runs >> self._shift] = True

    def in_text(self, text: str) -> bool:
        """Return whether `text` contains one of the runs."""
        return len(self.runs) > 0 and any(map(self._has_one_of, runs_of_text(text, self.n)))

    def _has_one_of(self, hashes: np.ndarray) -> bool:
        likely = hashes[self._possible[hashes >> self._shift]]
        places = np.searchsorted(self.runs, likely)
        return bool((self.runs[np.minimum(places, len(self.runs) - 1)] == likely).any())


def runs_of_text(text: str, n: int) -> Iterator[np.ndarray]:
    """Yield the hashes of a text's runs, block by block."""
    before = np.empty(0, np.uint64)
    for block in blocks(text):
        words = np.concatenate([before, words_of_block(block)[1]])
        yield runs(words, n)
        before = words[max(len(words) - n + 1, 0) :]


def blocks(text: str) -> Iterator[str]:
    """Yield a text, normalized for comparison, in pieces that end at the end of a word."""
    start = 0
    while start < len(text):
        cut = WHITE_SPACE.search(text, start + BLOCK, start + 2 * BLOCK)
        end = start + 2 * BLOCK if cut is None else cut.start()
        yield unicodedata.normalize("NFKC", text[start:end]).casefold()
        start = end


def words_of_block(block: str) -> tuple[np.ndarray, np.ndarray]:
    """Return where each word starts, and a hash of it: a polynomial in MULTIPLIER of its characters."""
    codes = np.frombuffer(block.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    inside = letters_and_digits()[codes]
    edges = np.diff(inside, prepend=False, append=False)
    starts, ends = np.flatnonzero(edges).reshape(-1, 2).T
    lengths = ends - starts
    if not len(lengths):
        return starts, np.empty(0, np.uint64)
    firsts = np.cumsum(lengths) - lengths
    places = np.arange(lengths.sum()) - np.repeat(firsts, lengths)
    powers = np.cumprod(np.full(lengths.max(), MULTIPLIER))
    return starts, mix(np.add.reduceat(mix(codes[inside].astype(np.uint64)) * powers[places], firsts))


@lru_cache
def letters_and_digits() -> np.ndarray:
    """Return, for every character code, whether the character can be part of a word."""
    return np.strings.isalnum(np.arange(sys.maxunicode + 1, dtype="<u4").view("<U1"))


def runs(hashes: np.ndarray, n: int) -> np.ndarray:
    """Return a hash of each `n` consecutive words: the same polynomial of the words' hashes."""
    count = max(len(hashes) - n + 1, 0)
    total = np.zeros(count, dtype=np.uint64)
    for place in range(n):
        total *= MULTIPLIER
        total += hashes[place : place + count]
    return mix(total)


def mix(hashes: np.ndarray) -> np.ndarray:
    """Return hashes in which every bit depends on every other: the finalizer of murmur3."""
    hashes = hashes ^ (hashes >> np.uint64(33))
    hashes *= np.uint64(0xFF51AFD7ED558CCD)
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xC4CEB9FE1A85EC53)
    hashes ^= hashes >> np.uint64(33)
    return hashes

"""Runs of words that a document shares with the texts of an evaluation.

Words are letters and digits between anything else, compared without case and without regard to how a character is
spelled (NFKC); a run is `n` words, 13 as for GPT-3 (arXiv 2005.14165, appendix C). A run is kept as a hash of 64 bits, so a
false find is as good as impossible and no text is stored. Evaluation texts of fewer than `n` words are not looked for.
The cost is about half a microsecond a word, and 8 bytes a run of the evaluation plus 8 to 16 bytes a run to look it up by.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

BLOCK = 2**20  # characters: a long text is taken in blocks, so that its words never lie in memory all at once
WHITE_SPACE = re.compile(r"\s")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio, as in Fibonacci hashing


class SharedRuns:
    """The runs of some texts, and whether another text has one of them.

    Args:
        texts: of the evaluation.
        n: words in a run.
    """

    def __init__(self, texts: Iterable[str], n: int):
        self.n = n
        found = [np.unique(hashes) for text in texts for hashes in runs_of_text(text, n)]
        self.runs = np.unique(np.concatenate([np.empty(0, np.uint64), *found]))
        bits = max(10, (8 * len(self.runs)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._perhaps = np.zeros(1 << bits, dtype=bool)  # by a hash's first bits: rules nearly all runs out
        self._perhaps[self.runs >> self._shift] = True

    def in_text(self, text: str) -> bool:
        """Whether `text` has a run of theirs."""
        return len(self.runs) > 0 and any(map(self._has_one_of, runs_of_text(text, self.n)))

    def _has_one_of(self, hashes: np.ndarray) -> bool:
        likely = hashes[self._perhaps[hashes >> self._shift]]
        places = np.searchsorted(self.runs, likely)
        return bool((self.runs[np.minimum(places, len(self.runs) - 1)] == likely).any())


def runs_of_text(text: str, n: int) -> Iterator[np.ndarray]:
    """The hashes of a text's runs, block by block."""
    before = np.empty(0, np.uint64)
    for block in blocks(text):
        words = np.concatenate([before, words_of_block(block)])
        yield runs(words, n)
        before = words[max(len(words) - n + 1, 0) :]


def blocks(text: str) -> Iterator[str]:
    """`text` in pieces that end where a word does, in the spelling that is compared."""
    start = 0
    while start < len(text):
        cut = WHITE_SPACE.search(text, start + BLOCK, start + 2 * BLOCK)
        end = start + 2 * BLOCK if cut is None else cut.start()
        yield unicodedata.normalize("NFKC", text[start:end]).casefold()
        start = end


def words_of_block(block: str) -> np.ndarray:
    """A polynomial in MULTIPLIER of each word's characters, for all words at once."""
    codes = np.frombuffer(block.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    inside = letters_and_digits()[codes]
    edges = np.diff(inside, prepend=False, append=False)
    starts, ends = np.flatnonzero(edges).reshape(-1, 2).T
    lengths = ends - starts
    if not len(lengths):
        return np.empty(0, np.uint64)
    firsts = np.cumsum(lengths) - lengths
    places = np.arange(lengths.sum()) - np.repeat(firsts, lengths)
    powers = np.cumprod(np.full(lengths.max(), MULTIPLIER))
    return mixed(np.add.reduceat(mixed(codes[inside].astype(np.uint64)) * powers[places], firsts))


@lru_cache
def letters_and_digits() -> np.ndarray:
    """Of every character, whether it belongs to a word."""
    return np.array([chr(code).isalnum() for code in range(sys.maxunicode + 1)])


def runs(hashes: np.ndarray, n: int) -> np.ndarray:
    """A hash of each `n` consecutive words: the same polynomial of theirs."""
    count = max(len(hashes) - n + 1, 0)
    total = np.zeros(count, dtype=np.uint64)
    for place in range(n):
        total *= MULTIPLIER
        total += hashes[place : place + count]
    return mixed(total)


def mixed(hashes: np.ndarray) -> np.ndarray:
    """Every bit made to depend on every other: the finaliser of murmur3."""
    hashes = hashes ^ (hashes >> np.uint64(33))
    hashes *= np.uint64(0xFF51AFD7ED558CCD)
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xC4CEB9FE1A85EC53)
    hashes ^= hashes >> np.uint64(33)
    return hashes

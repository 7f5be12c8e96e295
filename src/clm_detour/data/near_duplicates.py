"""The search for near copies among texts. It does not depend on how their fingerprints are divided.

A text is left out if it is a near copy of an earlier text that is kept. Texts that share the key of a band
(`shingles.py`) are candidates; their exact Jaccard index decides. In each bucket of equal keys, a text is
compared with the first texts of the bucket only, and at most MOST_PAIRS earlier near copies of a text are
remembered, so that time and memory grow with the number of texts even if all of them are alike. Of texts with
equal sets of shingles, only the first takes part in the bands.

Memory is about 80 bytes for each text: 36 for its record and 42 while a band is sorted, or 16 for the result.
Pairs take 16 bytes each, and three times that for a moment when more are found. Exact comparison takes up to
50 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from clm_detour.data.fingerprints import Fingerprints
from clm_detour.data.shingles import BANDS, jaccard

FIRST_OF_BUCKET = 16
MOST_PAIRS = 16
LATER = np.uint64(32)  # a pair is one number: the later text in the upper 32 bits, the earlier in the lower
EARLIER = np.uint64(2**32 - 1)
NO_PAIR = np.uint64(2**64 - 1)
BLOCK_PAIRS = 2**16
BLOCK_SHINGLES = 2**19


class NearCopies(NamedTuple):
    """The near copies among some texts.

    Args:
        original: For each text, the earlier text that is kept and near to it; -1 if the text is kept.
        jaccard: For each text, the Jaccard index of the two; 0 if the text is kept.
    """

    original: np.ndarray
    jaccard: np.ndarray


class Pairs(NamedTuple):
    """Pairs of texts in ascending order, each with its Jaccard index."""

    codes: np.ndarray
    jaccard: np.ndarray

    @property
    def later(self) -> np.ndarray:
        """The later text of each pair."""
        return (self.codes >> LATER).astype(np.int64)

    @property
    def ranks(self) -> np.ndarray:
        """The number of pairs of the same later text that come before each pair."""
        places = np.arange(len(self.codes))
        firsts = np.where(np.diff(self.later, prepend=-1) != 0, places, 0)
        return places - np.maximum.accumulate(firsts)


NO_PAIRS = Pairs(np.empty(0, np.uint64), np.empty(0))


def find_near_copies(
    fingerprints: Fingerprints, threshold: float, active: np.ndarray, advance: Callable[[int], None]
) -> NearCopies:
    """Return which texts are near copies of earlier ones that are kept.

    Args:
        threshold: Smallest Jaccard index of near copies.
        active: For each text, whether it takes part.
        advance: Function that is called with 1 after each band.
    """
    texts = np.flatnonzero(active)
    equal = bucket_pairs(fingerprints.texts["whole"][texts], texts, first=1)
    pairs = with_near(NO_PAIRS, equal, fingerprints, threshold)
    texts = np.setdiff1d(texts, pairs.later[pairs.jaccard == 1], assume_unique=True)
    for band in range(BANDS):
        candidates = bucket_pairs(fingerprints.band(band)[texts], texts, FIRST_OF_BUCKET)
        pairs = with_near(pairs, candidates, fingerprints, threshold)
        advance(1)
    return decide(len(active), pairs)


def bucket_pairs(keys: np.ndarray, texts: np.ndarray, first: int) -> Iterator[np.ndarray]:
    """Yield the pairs of texts that have equal keys, in blocks of at most BLOCK_PAIRS.

    Args:
        keys: Key of each text.
        texts: Numbers of the texts, in ascending order.
        first: A text is paired with no more than this many texts of its bucket, the first ones.
    """
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = keys[1:] != keys[:-1]
    heads, members = np.flatnonzero(new), np.flatnonzero(~new)
    heads = heads[np.searchsorted(heads, members) - 1]  # the first of each member's bucket
    for start in range(0, len(members), BLOCK_PAIRS // first):
        some = slice(start, start + BLOCK_PAIRS // first)
        places = heads[some, None] + np.arange(first)
        rows, columns = np.nonzero(places < members[some, None])
        later, earlier = texts[order[members[some][rows]]], texts[order[places[rows, columns]]]
        yield later.astype(np.uint64) << LATER | earlier.astype(np.uint64)


def with_near(
    pairs: Pairs, candidates: Iterator[np.ndarray], fingerprints: Fingerprints, threshold: float
) -> Pairs:
    """Return `pairs` together with those of the candidates that are near copies."""
    last = np.append(
        pairs.codes[pairs.ranks == MOST_PAIRS - 1], NO_PAIR
    )  # those behind it are not remembered
    found = [pairs]
    for codes in candidates:
        seen = np.append(pairs.codes, NO_PAIR)[np.searchsorted(pairs.codes, codes)] == codes
        end = last[np.searchsorted(last >> LATER, codes >> LATER)]
        full = (end >> LATER == codes >> LATER) & (end < codes)
        found += near_among(codes[~seen & ~full], fingerprints, threshold)
    codes = np.concatenate([some.codes for some in found])
    order = np.argsort(codes)
    merged = Pairs(codes[order], np.concatenate([some.jaccard for some in found])[order])
    return Pairs(*(values[merged.ranks < MOST_PAIRS] for values in merged))


def near_among(codes: np.ndarray, fingerprints: Fingerprints, threshold: float) -> Iterator[Pairs]:
    """Yield the near copies among candidates, in blocks of about BLOCK_SHINGLES."""
    sizes = fingerprints.texts["shingles"]
    later, earlier = (codes >> LATER).astype(np.int64), (codes & EARLIER).astype(np.int64)
    possible = np.minimum(sizes[later], sizes[earlier]) >= threshold * np.maximum(
        sizes[later], sizes[earlier]
    )
    codes, later, earlier = codes[possible], later[possible], earlier[possible]
    blocks = np.cumsum(sizes[later] + sizes[earlier], dtype=np.int64) // BLOCK_SHINGLES
    edges = np.flatnonzero(np.diff(blocks, prepend=-1, append=-1))
    for start, end in pairwise(edges.tolist()):
        both = np.concatenate([later[start:end], earlier[start:end]])
        texts, places = np.unique(both, return_inverse=True)
        likeness = jaccard(fingerprints.sets(texts), *np.split(places, 2))
        near = likeness >= threshold
        yield Pairs(codes[start:end][near], likeness[near])


def decide(count: int, pairs: Pairs) -> NearCopies:
    """Return which of `count` texts are left out, going through them in their order."""
    found = NearCopies(np.full(count, -1), np.zeros(count))
    original, likeness = memoryview(found.original.data), memoryview(found.jaccard.data)
    for code, near in zip(pairs.codes.tolist(), pairs.jaccard.tolist(), strict=True):
        later, earlier = code >> 32, code & (2**32 - 1)
        if original[later] >= 0:
            continue
        if original[earlier] < 0:
            original[later], likeness[later] = earlier, near
        elif near == 1:  # the two sets are equal, so they are near copies of the same text
            original[later], likeness[later] = original[earlier], likeness[earlier]
    return found

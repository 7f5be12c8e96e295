"""Texts as sets of shingles, and keys by which near copies of a text are found among many texts.

A shingle is a run of three words, as in `decontaminate.py`: without case, punctuation and blanks. The
likeness of two texts is the Jaccard index J of their sets A and B, |A & B| / |A | B|.

Each set gets a MinHash signature of 256 slots (R-MinHash of the package rensa). Two signatures agree in a
slot with probability J. The slots are divided into 64 bands of 4, and texts that agree in all slots of a
band are compared exactly. Two texts are therefore compared with probability 1 - (1 - J^4)^64: 98.4 % at
J = 0.5 and 99.9 % at 0.57, which is the mean of texts in which a tenth of the words was replaced (a shingle
remains with probability p = 0.9^3, and J = p / (2 - p)). At J = 0.1 it is 0.6 %.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

import numpy as np
from rensa import RMinHash
from scipy.sparse import csr_array

from clm_detour.data.decontaminate import MULTIPLIER, mix, runs, runs_of_text, words_of_block
from clm_detour.data.sources.selection import has_fewer_words

WORDS = 3
BANDS, SLOTS = 64, 4
SEED = 1
FEWEST_WORDS = 20  # paragraphs with fewer words, such as headings, are not compared
BLANK_LINES = re.compile(r"(\n\s*\n)")


def shingle_sets(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sets of shingles of texts.

    Args:
        texts: Texts; one that is very long should be alone, because then it is processed in blocks.

    Returns:
        Hashes of 64 bits, sorted within each text, and the number of each text's. A text of fewer than three
        words has none.
    """
    if len(texts) == 1:
        hashes = np.unique(np.concatenate([np.empty(0, np.uint64), *runs_of_text(texts[0], WORDS)]))
        return hashes, np.array([len(hashes)])
    lines = [unicodedata.normalize("NFKC", text).casefold() for text in texts]
    starts, words = words_of_block("\n".join(lines))
    ends = np.cumsum([len(line) + 1 for line in lines])
    owners = np.searchsorted(ends, starts, side="right")  # the text of each word
    inside = owners[: 1 - WORDS] == owners[WORDS - 1 :]  # the shingle does not reach into the next text
    hashes, owners = runs(words, WORDS)[inside], owners[: 1 - WORDS][inside]
    ends = np.cumsum(np.bincount(owners, minlength=len(texts)))
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        hashes[start:end].sort()
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return hashes[new], np.bincount(owners[new], minlength=len(texts))


def band_keys(hashes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return a key of 64 bits for each band of each set, as an array (sets, BANDS).

    Args:
        hashes, sizes: Sets as `shingle_sets` returns them, none of them empty.
    """
    if not len(sizes):
        return np.empty((0, BANDS), np.uint64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, BANDS * SLOTS, SEED)
    slots = np.array(matrix.to_rows(), dtype=np.uint32).view(np.uint64).reshape(len(sizes), BANDS, SLOTS // 2)
    return mix(mix(slots[..., 0]) * MULTIPLIER + slots[..., 1])


def jaccard(sets: tuple[np.ndarray, np.ndarray], one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the Jaccard index of each of several pairs of sets.

    Args:
        sets: Sets as `shingle_sets` returns them, none of them empty. Of a hash, 63 bits are compared.
        one, other: Numbers of the sets of each pair.
    """
    hashes, sizes = sets
    columns, bounds = (hashes >> np.uint64(1)).view(np.int64), np.concatenate([[0], np.cumsum(sizes)])
    ones = np.ones(len(hashes), dtype=bool)
    rows = csr_array((ones, columns, bounds), shape=(len(sizes), 2**63 - 1))
    shared = np.diff(rows[one].multiply(rows[other]).indptr)
    return shared / (sizes[one] + sizes[other] - shared)


def compared_texts(text: str, by: str) -> list[tuple[int, str]]:
    """Return what is compared of a document: itself, or its long paragraphs with their numbers."""
    if by == "document":
        return [(0, text)]
    paragraphs = BLANK_LINES.split(text)[::2]
    return [
        (number, paragraph)
        for number, paragraph in enumerate(paragraphs)
        if not has_fewer_words(paragraph, FEWEST_WORDS)
    ]


def without_paragraphs(text: str, cut: Collection[int]) -> str:
    """Return a text without the paragraphs of these numbers, each with the blank lines that follow it."""
    pieces = BLANK_LINES.split(text)
    kept = [piece for place, piece in enumerate(pieces) if place // 2 not in cut]
    return "".join(kept).rstrip() if len(pieces) // 2 in cut else "".join(kept)

"""Texts with planted near copies, for the tests and the benchmark of near duplicates."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable

WORDS = [f"{a}{b}{c}" for a, b, c in itertools.product("bdfgklmnprst", "aeiou", ["n", "r", "st", "mo", "la"])]


def new_text(rng: random.Random, words: int) -> str:
    """A text of random words, in sentences."""
    found = rng.choices(WORDS, k=words)
    return " ".join(word + "." * (place % 12 == 11) for place, word in enumerate(found))


def edited(rng: random.Random, text: str, share: float) -> str:
    """The text with a share of its words replaced."""
    words = text.split()
    for place in rng.sample(range(len(words)), round(share * len(words))):
        words[place] = f"x{rng.randrange(10**9)}"
    return " ".join(words)


def shingles(text: str) -> set[tuple[str, ...]]:
    """The runs of three words, by the shortest code there is."""
    words = re.findall(r"[^\W_]+", text.casefold())
    return set(zip(words, words[1:], words[2:], strict=False))


def brute_jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b) if a | b else 0.0


def greedy(texts: Iterable[str], threshold: float) -> list[str]:
    """The texts that are kept, by comparing each with all kept before it."""
    kept: list[str] = []
    for text in texts:
        if all(brute_jaccard(text, other) < threshold for other in kept):
            kept.append(text)
    return kept

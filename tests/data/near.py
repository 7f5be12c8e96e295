"""Texts with planted near copies, for the tests of near duplicates."""

from __future__ import annotations

import itertools
import json
import random
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from clm_detour.data.copies import LISTING
from clm_detour.data.shards import TokenShards
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.data.tokenizer_training import train_tokenizer

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
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold())
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


def as_lines(texts: Iterable[str]) -> str:
    """Texts as JSON lines."""
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def texts_in(folder: Path, tokenizer: Tokenizer, *splits: str) -> list[str]:
    """The texts of a prepared source."""
    texts = []
    for split in splits:
        shards = TokenShards.open(folder / split)
        for shard in range(len(shards)):
            documents = np.split(shards.tokens(shard), np.cumsum(shards.lengths(shard))[:-1])
            texts += [tokenizer.tokenizer.decode(ids[1:-1].tolist()) for ids in documents]
    return texts


def listed(folder: Path) -> list[dict[str, Any]]:
    """The lines about near copies in the folder of a source."""
    return [json.loads(line) for line in (folder / LISTING).read_text().splitlines()]


def write_tokenizer(folder: Path) -> Path:
    """Train a tokenizer on the words of all texts."""
    train_tokenizer([" ".join(WORDS)], 400, folder)
    return folder

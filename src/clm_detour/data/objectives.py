"""Inputs and labels of the two objectives.

`labels[t]` is the token that position t must predict, or `IGNORED` if it predicts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from clm_detour.data.word_marks import WordMarks

IGNORED = -100


@dataclass(frozen=True)
class Vocabulary:
    """The parts of a tokenizer that masking needs."""

    size: int
    pad: int
    mask: int
    special: tuple[int, ...]  # never masked, never drawn as a replacement
    words: WordMarks | None = field(default=None, repr=False, compare=False)  # only to mask whole words
    is_special: np.ndarray = field(init=False, repr=False, compare=False)  # of every id
    ordinary: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_special", np.isin(np.arange(self.size), self.special))
        object.__setattr__(self, "ordinary", np.flatnonzero(~self.is_special))


@dataclass(frozen=True)
class Objective:
    """`clm`, or `mlm` with the share of tokens to predict.

    Args:
        mask_unit: Whether tokens or whole words are chosen. A word is chosen whatever its length, so the
            share of tokens is the same on average.
    """

    kind: Literal["clm", "mlm"]
    mask_rate: float | None = None
    mask_unit: Literal["token", "word"] = "token"

    def __str__(self) -> str:
        """Return for example "clm", "mlm 30%" or "mlm 15% of words"."""
        if not self.mask_rate:
            return self.kind
        return f"{self.kind} {self.mask_rate:.0%}" + (" of words" if self.mask_unit == "word" else "")

    @property
    def causal(self) -> bool:
        """True if the attention mask is causal: a position sees itself and earlier ones only."""
        return self.kind == "clm"

    def apply(
        self, tokens: np.ndarray, lengths: np.ndarray, vocabulary: Vocabulary, key: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make inputs and labels.

        Args:
            tokens: (L,) int64, documents one after another, no padding.
            lengths: (documents,) how many of the tokens belong to each.
            key: (seed, position); the mask is a pure function of it.

        Returns:
            inputs (L,) and labels (L,), int64.
        """
        if self.causal:
            return tokens, next_tokens(tokens, lengths)
        assert self.mask_rate is not None
        rng = np.random.Generator(np.random.Philox(key=key))
        chosen = (
            rng.random(tokens.shape) < self.mask_rate
            if self.mask_unit == "token"
            else choose_words(tokens, lengths, self.mask_rate, vocabulary, rng)
        )
        return mask_tokens(tokens, chosen & ~vocabulary.is_special[tokens], vocabulary, rng)


def next_tokens(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return labels by which each position predicts the next token of its own document.

    The last position of a document predicts nothing.
    """
    labels = np.full_like(tokens, IGNORED)
    labels[:-1] = tokens[1:]
    labels[np.cumsum(lengths) - 1] = IGNORED
    return labels


def choose_words(
    tokens: np.ndarray, lengths: np.ndarray, rate: float, vocabulary: Vocabulary, rng: np.random.Generator
) -> np.ndarray:
    """Return which tokens to predict, (L,) bool: all those of a word, each word with probability `rate`.

    A document, or a piece of one, begins with a new word.
    """
    assert vocabulary.words is not None
    starts = vocabulary.words.starts(tokens)
    starts[np.cumsum(lengths) - lengths] = True
    word = np.cumsum(starts) - 1
    return (rng.random(word[-1] + 1) < rate)[word]


def mask_tokens(
    tokens: np.ndarray, chosen: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and labels masked as in BERT (arXiv 1810.04805).

    Of the chosen tokens 80 % become [MASK], 10 % become any ordinary token and 10 % stay. This is drawn for
    each token, also within a word, as BERT's whole-word masking does (`create_pretraining_data.py` of
    google-research/bert).
    """
    where = np.flatnonzero(chosen)
    fate = rng.random(where.size)
    inputs, labels = tokens.copy(), np.full_like(tokens, IGNORED)
    labels[where] = tokens[where]
    inputs[where[fate < 0.8]] = vocabulary.mask
    replaced = where[(fate >= 0.8) & (fate < 0.9)]
    inputs[replaced] = rng.choice(vocabulary.ordinary, size=replaced.size)
    return inputs, labels

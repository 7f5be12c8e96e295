"""Inputs and labels of the two objectives.

`labels[t]` is the token that position t must predict, or `IGNORED` if it predicts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

IGNORED = -100


@dataclass(frozen=True)
class Vocabulary:
    """The parts of a tokenizer that masking needs."""

    size: int
    pad: int
    mask: int
    special: tuple[int, ...]  # never masked, never drawn as a replacement
    is_special: np.ndarray = field(init=False, repr=False, compare=False)  # of every id
    ordinary: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_special", np.isin(np.arange(self.size), self.special))
        object.__setattr__(self, "ordinary", np.flatnonzero(~self.is_special))


@dataclass(frozen=True)
class Objective:
    """`clm`, or `mlm` with the share of tokens to predict."""

    kind: Literal["clm", "mlm"]
    mask_rate: float | None = None

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
        return mask_tokens(tokens, self.mask_rate, vocabulary, np.random.Generator(np.random.Philox(key=key)))


def next_tokens(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return labels by which each position predicts the next token of its own document.

    The last position of a document predicts nothing.
    """
    labels = np.full_like(tokens, IGNORED)
    labels[:-1] = tokens[1:]
    labels[np.cumsum(lengths) - 1] = IGNORED
    return labels


def mask_tokens(
    tokens: np.ndarray, rate: float, vocabulary: Vocabulary, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and labels masked as in BERT (arXiv 1810.04805).

    Of the chosen tokens 80 % become [MASK], 10 % become any ordinary token and 10 % stay.
    """
    chosen = (rng.random(tokens.shape) < rate) & ~vocabulary.is_special[tokens]
    where = np.flatnonzero(chosen)
    fate = rng.random(where.size)
    inputs, labels = tokens.copy(), np.full_like(tokens, IGNORED)
    labels[where] = tokens[where]
    inputs[where[fate < 0.8]] = vocabulary.mask
    replaced = where[(fate >= 0.8) & (fate < 0.9)]
    inputs[replaced] = rng.choice(vocabulary.ordinary, size=replaced.size)
    return inputs, labels

"""Examples, and batches of examples laid end to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

WordSpan = tuple[int, int, int]  # first word, last word, 1 + type


@dataclass(frozen=True)
class Example:
    """One text, or one window of a long text, with its training target.

    Args:
        document: Index of its document in the split.
        ids: Token ids.
        places: Positions in `ids` of the words that count; empty for labels of documents.
        target: Tags (words,), a class (), labels (C,), or spans (S, 3).
        first: Index in the document of the first of the words that count.
        owned: Number of these words, from the first on, that belong to this window.
    """

    document: int
    ids: list[int]
    places: list[int]
    target: Tensor
    first: int = 0
    owned: int = 0


@dataclass(frozen=True)
class Batch:
    """Several examples on a device. T is the number of their tokens."""

    examples: Sequence[Example]
    device: torch.device

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each example."""
        return [len(example.ids) for example in self.examples]

    @cached_property
    def ids(self) -> Tensor:
        """Token ids of all examples, (T,) int64."""
        return torch.tensor([token for example in self.examples for token in example.ids], device=self.device)

    @cached_property
    def places(self) -> Tensor:
        """Positions among the T tokens of all words that count."""
        spans = pairwise(accumulate(self.lengths, initial=0))
        places = [
            start + place
            for (start, _), example in zip(spans, self.examples, strict=True)
            for place in example.places
        ]
        return torch.tensor(places, dtype=torch.long, device=self.device)

    def join_targets(self) -> Tensor:
        """Return the concatenated targets, (words,)."""
        return torch.cat([example.target for example in self.examples]).to(self.device)

    def stack_targets(self) -> Tensor:
        """Return the stacked targets, (examples, ...)."""
        return torch.stack([example.target for example in self.examples]).to(self.device)


class EpochBatches:
    """The batches of training. The order in epoch e depends only on (seed, e).

    Args:
        batch_size: Number of examples in a batch; the last one of an epoch may be smaller.
    """

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int, device: torch.device):
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.device = device

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self.examples) // self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        order = np.random.default_rng((self.seed, number)).permutation(len(self.examples))
        for first in range(0, len(order), self.batch_size):
            chosen = [self.examples[i] for i in order[first : first + self.batch_size]]
            yield Batch(chosen, self.device)


def count_windows(examples: Sequence[Example], by_line: bool = False) -> dict[str, int]:
    """Return the number of windows, and of documents with several windows; lines are not windows."""
    windows = Counter(example.document for example in examples)
    several = 0 if by_line else sum(count > 1 for count in windows.values())
    return {"windows": len(examples), "documents_in_windows": several}


def by_length(examples: Sequence[Example], batch_size: int) -> list[list[int]]:
    """Return indices of the examples in batches of similar lengths, which need little padding."""
    order = sorted(range(len(examples)), key=lambda place: len(examples[place].ids))
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]

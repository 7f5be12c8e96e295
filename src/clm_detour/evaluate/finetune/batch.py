"""Examples laid end to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Example:
    """One text, or a window of one, and what is to be learned of it.

    Args:
        document: its place in the split.
        places: positions in `ids` of the words that count; none for labels of documents.
        target: tags (words,), a class (), labels (C,), or spans (S, 3).
        first: number in the document of the word at the first place.
        owned: how many of the places, from the first on, belong to this window.
    """

    document: int
    ids: list[int]
    places: list[int]
    target: Tensor
    first: int = 0
    owned: int = 0


@dataclass(frozen=True)
class Batch:
    """Some examples on a device."""

    examples: Sequence[Example]
    device: torch.device

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [len(example.ids) for example in self.examples]

    @cached_property
    def ids(self) -> Tensor:
        """(T,) int64."""
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
        """(words,): the targets one behind the other."""
        return torch.cat([example.target for example in self.examples]).to(self.device)

    def stack_targets(self) -> Tensor:
        """(N, ...): the targets on top of each other."""
        return torch.stack([example.target for example in self.examples]).to(self.device)


class EpochBatches:
    """Batches of an endless training stream: the order of epoch e follows from (seed, e) alone.

    Args:
        batch_size: examples in a batch; an epoch's last may be smaller.
    """

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int, device: torch.device):
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.device = device

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.examples) // self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch."""
        order = np.random.default_rng((self.seed, number)).permutation(len(self.examples))
        for first in range(0, len(order), self.batch_size):
            chosen = [self.examples[i] for i in order[first : first + self.batch_size]]
            yield Batch(chosen, self.device)


def count_windows(examples: Sequence[Example]) -> dict[str, int]:
    """How many windows there are, and how many documents have several."""
    of_document = Counter(example.document for example in examples)
    return {
        "windows": len(examples),
        "documents_in_windows": sum(count > 1 for count in of_document.values()),
    }


def by_length(examples: Sequence[Example], batch_size: int) -> list[list[int]]:
    """Places of the examples in batches of similar lengths, for scoring: little padding where there is any."""
    order = sorted(range(len(examples)), key=lambda place: len(examples[place].ids))
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]

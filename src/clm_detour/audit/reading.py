"""The rows that phases read, and the canaries in them.

A stream is a pure function of its seed and a position, so its rows are known without a record of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from clm_detour.audit.models import Span, spans
from clm_detour.data.packing import PackedSource
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe

SHORTEST = 4  # tokens of a part of a canary, cut off by packing, for which its row is left out

Counts = dict[str, np.ndarray]  # source -> how often each of its rows was read, (rows,) int64


@dataclass
class Readings:
    """Counts of how often phases read each row. A stretch of a stream is followed once."""

    recipe: Recipe
    known: dict[Span, Counts] = field(default_factory=dict)

    def of(self, runs: Iterable[PhaseRun]) -> Counts:
        """Return how often some phases together read each row of their sources."""
        total: Counts = {}
        for run in runs:
            for source, counts in self._of(run).items():
                total[source] = total[source] + counts if source in total else counts
        return total

    def _of(self, run: PhaseRun) -> Counts:
        (span,) = spans([run])
        if span not in self.known:
            mixture = self.recipe.stream(run).mixture
            counts = {name: np.zeros(rows, dtype=np.int64) for name, rows in mixture.rows.items()}
            for position in range(run.first_row, run.next_row):
                place = mixture.locate(position)
                counts[place.source][place.row] += 1
            self.known[span] = counts
        return self.known[span]


@dataclass(frozen=True)
class FoundCanaries:
    """The canaries in the rows of a source.

    Args:
        whole: Row -> the numbers of the canaries of which it holds a whole copy, one for each copy.
        rows: Rows that hold a canary, or a part of one that packing cut off.
    """

    whole: dict[int, list[int]]
    rows: set[int]

    def count(self, canaries: int, read: np.ndarray) -> list[int]:
        """Return how many copies of each canary were read.

        Args:
            canaries: Number of canaries.
            read: How often each row was read, (rows,).
        """
        copies = np.zeros(canaries, dtype=np.int64)
        for row, numbers in self.whole.items():
            np.add.at(copies, numbers, read[row])
        return copies.tolist()


def find_canaries(source: PackedSource, rows: Iterable[int], canaries: Sequence[np.ndarray]) -> FoundCanaries:
    """Find the canaries in rows of a source.

    Args:
        canaries: Token ids of each canary as a document.
    """
    dtype = source.shards.dtype
    documents = [ids.astype(dtype) for ids in canaries]
    numbers = {ids.tobytes(): number for number, ids in enumerate(documents)}
    parts = {
        ids[start:end].tobytes()
        for ids in documents
        for start in range(len(ids))
        for end in range(start + SHORTEST, len(ids) + 1)
    }
    longest = max(map(len, documents), default=0)
    whole: dict[int, list[int]] = {}
    holding = set()
    for row in rows:
        tokens, lengths = source.row(row)
        ends = np.cumsum(lengths)
        for place in np.flatnonzero(lengths <= longest):
            piece = tokens[ends[place] - lengths[place] : ends[place]].tobytes()
            if piece in parts:
                holding.add(row)
            if piece in numbers:
                whole.setdefault(row, []).append(numbers[piece])
    return FoundCanaries(whole, holding)

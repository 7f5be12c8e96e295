"""Loss and accuracy of a language model on held-out rows: the same rows and masks for every model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from clm_detour.data.loader import Batch, collate, make_example
from clm_detour.data.objectives import IGNORED, Objective, Vocabulary
from clm_detour.data.packing import Row
from clm_detour.measure.scorer import Totals, score
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.records.run import Scores
from clm_detour.utils.progress import Advance


class RowSource(Protocol):
    """Packed rows, such as a `PackedSource`."""

    @property
    def longest(self) -> int | None:
        """Number of tokens at which documents are cut for the model, None if there is no limit."""

    def __len__(self) -> int: ...

    def row(self, number: int, /) -> Row:
        """Return a row."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows under fixed masks.

    Args:
        sources: The held-out rows of each source.
        vocabulary: What masking must know of the tokenizer.
        sequence_length: Number of tokens of a row.
        mask_rate: Share of the tokens to predict, for `mlm`.
        rows: Number of rows of each source, at most.
        seed: Seed of the masks.
        batch_rows: Number of rows of a forward.
        kind: `mlm`, under the bidirectional mask, or `clm`, under the causal one.
    """

    sources: Mapping[str, RowSource]
    vocabulary: Vocabulary
    sequence_length: int
    mask_rate: float
    rows: int
    seed: int
    batch_rows: int = 8
    kind: Literal["mlm", "clm"] = "mlm"

    @property
    def objective(self) -> Objective:
        """The objective under which the rows are scored."""
        return Objective(self.kind, self.mask_rate if self.kind == "mlm" else None)

    @property
    def total_rows(self) -> int:
        """Number of rows on which a model is scored."""
        return sum(min(self.rows, len(source)) for source in self.sources.values())

    def score(self, network: ModernBertForPretraining, advance: Advance) -> Scores:
        """Score a model, on the GPU if there is one. Its mask and training mode do not change."""
        causal = self.objective.causal
        sources = {
            name: score(network, self._batches(source), causal, advance)
            for name, source in self.sources.items()
        }
        whole = sum(sources.values(), start=Totals())
        by_source = {name: totals.means() for name, totals in sources.items()}
        return Scores(**vars(whole.means()), by_source=by_source)

    def count_characters(self, characters: np.ndarray) -> dict[str, int]:
        """Return the number of characters of the predicted tokens of each source.

        Args:
            characters: Number of characters of each token.
        """
        counts = {}
        for name, source in self.sources.items():
            labels = [batch["labels"].numpy() for batch in self._batches(source)]
            counts[name] = sum(int(characters[each[each != IGNORED]].sum()) for each in labels)
        return counts

    def _batches(self, source: RowSource) -> Iterator[Batch]:
        count, objective = min(self.rows, len(source)), self.objective
        for first in range(0, count, self.batch_rows):
            yield collate(
                [
                    make_example(
                        *source.row(i),
                        objective,
                        self.vocabulary,
                        self.sequence_length,
                        (self.seed, i),
                        source.longest,
                    )
                    for i in range(first, min(first + self.batch_rows, count))
                ]
            )

"""Held-out rows as they were before tokens were added, to score a model that does not know these tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clm_detour.data.added_tokens import AddedTokens
from clm_detour.data.objectives import Vocabulary
from clm_detour.data.packing import Row
from clm_detour.measure.held_out import HeldOut, RowSource


def before_addition(held_out: HeldOut, added: AddedTokens, vocabulary: Vocabulary) -> HeldOut:
    """Return the same text as the tokenizer without the added tokens divides it.

    Args:
        vocabulary: That of the tokenizer without the added tokens.
    """
    sources = {name: DividedSource(source, added) for name, source in held_out.sources.items()}
    rows = ((source, min(held_out.rows, len(source))) for source in sources.values())
    longest = max(len(source.row(number).tokens) for source, count in rows for number in range(count))
    return replace(held_out, sources=sources, vocabulary=vocabulary, sequence_length=longest)


@dataclass(frozen=True)
class DividedSource:
    """A packed source in which added tokens are divided into their pieces. Its rows are longer.

    Args:
        source: The rows with added tokens.
        added: The added tokens.
    """

    source: RowSource
    added: AddedTokens

    def __len__(self) -> int:
        return len(self.source)

    @property
    def longest(self) -> int | None:
        """Number of tokens at which documents are cut for the model, None if there is no limit."""
        return self.source.longest

    def row(self, number: int) -> Row:
        """Return a row. A document that becomes too long for the model is cut."""
        row = self.source.row(number)
        ends = np.cumsum(row.lengths)[:-1]
        documents = [self.added.divide(ids)[: self.longest] for ids in np.split(row.tokens, ends)]
        lengths = np.array([len(ids) for ids in documents], dtype=np.asarray(row.lengths).dtype)
        return Row(np.concatenate(documents), lengths)

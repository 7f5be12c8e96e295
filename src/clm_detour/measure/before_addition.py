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
    sources = {name: divide(source, added, held_out.rows) for name, source in held_out.sources.items()}
    longest = max(len(row.tokens) for source in sources.values() for row in source.rows)
    return replace(held_out, sources=sources, vocabulary=vocabulary, sequence_length=longest)


@dataclass(frozen=True)
class Rows:
    """Rows in memory, as a `RowSource`.

    Args:
        longest: Number of tokens at which documents are cut for the model, None if there is no limit.
    """

    rows: list[Row]
    longest: int | None

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, number: int) -> Row:
        """Return a row."""
        return self.rows[number]


def divide(source: RowSource, added: AddedTokens, count: int) -> Rows:
    """Return up to `count` rows with added tokens divided into their pieces. They are longer.

    A document that becomes too long for the model is cut.
    """
    rows = []
    for row in map(source.row, range(min(count, len(source)))):
        ends = np.cumsum(row.lengths)[:-1]
        documents = [added.divide(ids)[: source.longest] for ids in np.split(row.tokens, ends)]
        lengths = np.array([len(ids) for ids in documents], dtype=np.asarray(row.lengths).dtype)
        rows.append(Row(np.concatenate(documents), lengths))
    return Rows(rows, source.longest)

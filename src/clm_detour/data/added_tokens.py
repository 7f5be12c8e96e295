"""The tokens that were added to a tokenizer, each with the tokens into which it was divided before.

They are listed in `added_vocabulary.json` beside the extended `tokenizer.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clm_detour.utils.files import read_json, write_json

ADDED = "added_vocabulary.json"
CHUNK = 2**22  # ids that are counted at a time, to bound memory


@dataclass(frozen=True)
class AddedTokens:
    """Added tokens.

    Args:
        pieces: Id of each added token -> its ids in the tokenizer before the addition, in order.
    """

    pieces: Mapping[int, Sequence[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.pieces)

    def count_before(self, ids: np.ndarray) -> int:
        """Return the number of tokens that ids (L,) were before the addition."""
        if not self.pieces:
            return len(ids)
        more = self._counts(max(self.pieces) + 1) - 1
        parts = (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
        return len(ids) + sum(int(more[part[part < len(more)]].sum()) for part in parts)

    def divide(self, ids: np.ndarray) -> np.ndarray:
        """Return ids (L,) with the pieces of each added token in its place."""
        if not self.pieces or not len(ids):
            return ids
        counts = self._counts(max(int(ids.max()), *self.pieces) + 1)
        divided = np.repeat(ids, counts[ids])
        ends = np.cumsum(counts[ids])
        for place in np.flatnonzero(counts[ids] > 1):
            pieces = self.pieces[int(ids[place])]
            divided[ends[place] - len(pieces) : ends[place]] = pieces
        return divided

    def _counts(self, size: int) -> np.ndarray:
        """Return the number of pieces of each id below `size`, which is above all added ids."""
        counts = np.ones(size, dtype=np.int64)
        counts[list(self.pieces)] = [len(pieces) for pieces in self.pieces.values()]
        return counts


def read_added(file: Path | None) -> AddedTokens:
    """Return the tokens that a file lists; none without a file."""
    if file is None:
        return AddedTokens()
    return AddedTokens({int(id): tuple(pieces) for id, pieces in read_json(file)["pieces"].items()})


def write_added(added: AddedTokens, tokens: Mapping[int, str], file: Path) -> None:
    """Write a list of added tokens.

    Args:
        tokens: Id -> the token as the vocabulary has it.
    """
    pieces = {str(id): list(pieces) for id, pieces in added.pieces.items()}
    write_json(file, {"pieces": pieces, "tokens": {str(id): token for id, token in tokens.items()}})

"""Rows that models read and rows that were held out: a sample of both, and the loss of each row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from clm_detour.data.loader import collate, make_example
from clm_detour.data.objectives import Objective, Vocabulary, mask_tokens
from clm_detour.data.packing import PackedSource, Row
from clm_detour.measure.token_losses import token_losses
from clm_detour.model import ModernBertForPretraining
from clm_detour.records.audit import AuditSettings, Mask
from clm_detour.utils.progress import Advance

BATCH_TOKENS = 4096
PARTS = 7  # one in seven tokens, about 15 %, is predicted in a pass


@dataclass(frozen=True)
class OnePart(Objective):
    """Masked language modeling that hides one of `PARTS` random parts of the tokens of a row.

    Args:
        part: Number of the part. The parts of a row are disjoint, and together they are all its tokens.
    """

    part: int = 0

    def apply(
        self, tokens: np.ndarray, lengths: np.ndarray, vocabulary: Vocabulary, key: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and labels as `Objective.apply`; the parts are a pure function of the key."""
        rng = np.random.Generator(np.random.Philox(key=key))
        chosen = rng.permutation(len(tokens)) % PARTS == self.part
        return mask_tokens(tokens, chosen & ~vocabulary.is_special[tokens], vocabulary, rng)


class RowId(NamedTuple):
    """A row of a split of a source."""

    source: str
    split: str
    number: int


@dataclass(frozen=True)
class Sample:
    """Rows that were read and rows that were held out, as many of each source.

    Args:
        left_out: Sources of which there are no held-out rows.
    """

    members: list[RowId]
    non_members: list[RowId]
    left_out: list[str]

    @property
    def rows(self) -> list[RowId]:
        """All rows, members first."""
        return [*self.members, *self.non_members]


@dataclass(frozen=True)
class Rows:
    """The packed rows of some sources.

    Args:
        sources: Split -> source -> its rows.
        tokens: Tokens of a row that are scored, from its start.
    """

    sources: Mapping[str, Mapping[str, PackedSource]]
    tokens: int

    def get(self, row: RowId) -> Row:
        """Return the scored part of a row."""
        tokens, lengths = self.sources[row.split][row.source].row(row.number)
        ends = np.minimum(np.cumsum(lengths), self.tokens)
        cut = np.diff(ends, prepend=0)
        return Row(tokens[: self.tokens], cut[cut > 0])

    def draw(
        self, source: str, split: str, count: int, seed: int, allowed: np.ndarray | None = None
    ) -> list[RowId]:
        """Return up to `count` rows in an order that depends on the seed alone.

        Rows that are much shorter than others, such as the last of a shard, are not taken. Of two sets of
        rows, one of which holds the other, mostly the same rows are drawn.

        Args:
            allowed: Which rows may be taken, (rows,) bool; None for all.
        """
        found: list[RowId] = []
        rng = np.random.Generator(np.random.Philox(key=(seed, number_of(f"{source}/{split}"))))
        for number in rng.permutation(len(self.sources[split][source])).tolist():
            row = RowId(source, split, number)
            if len(found) == count:
                break
            if (allowed is None or allowed[number]) and 2 * len(self.get(row).tokens) >= self.tokens:
                found.append(row)
        return found

    def sample(
        self, read: Mapping[str, np.ndarray], count: int, seed: int, without: Mapping[str, np.ndarray]
    ) -> Sample:
        """Return up to `count` members and as many non-members.

        Args:
            read: Source -> how often each of its training rows was read.
            without: Source -> which training rows are not members, (rows,) bool.
        """
        names = [name for name, counts in read.items() if counts.any()]
        members, others = {}, {}
        for name in names:
            allowed = (read[name] > 0) & ~without.get(name, np.zeros_like(read[name], dtype=bool))
            members[name] = self.draw(name, "train", count, seed, allowed)
            others[name] = self.draw(name, "held_out", count, seed)
        weights = {name: int(read[name].sum()) for name in names if members[name] and others[name]}
        there = {name: min(len(members[name]), len(others[name])) for name in weights}
        taken = in_shares(weights, there, count)
        left_out = [name for name in names if name not in weights]
        return Sample(first_of(members, taken), first_of(others, taken), left_out)


def in_shares(weights: Mapping[str, int], there: Mapping[str, int], count: int) -> dict[str, int]:
    """Return how many rows of each source to take, in proportion to weights as far as there are rows.

    The rows that a source lacks are taken from the others.

    Args:
        there: Source -> its number of rows.
        count: Number of rows, at most.
    """
    taken = {}
    weight = sum(weights.values())
    for name in sorted(weights, key=lambda name: there[name] / weights[name]):
        taken[name] = min(there[name], round(count * weights[name] / weight))
        count, weight = count - taken[name], weight - weights[name]
    return taken


def first_of(rows: Mapping[str, list[RowId]], taken: Mapping[str, int]) -> list[RowId]:
    """Return the first rows of each source."""
    return [row for name, count in taken.items() for row in rows[name][:count]]


def number_of(text: str) -> int:
    """Return a number of 62 bits that depends on a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 2


def row_losses(
    network: ModernBertForPretraining,
    rows: Rows,
    ids: Sequence[RowId],
    mask: Mask,
    settings: AuditSettings,
    vocabulary: Vocabulary,
    advance: Advance,
) -> np.ndarray:
    """Return the mean loss of each row over its predicted tokens, (rows,), in nats; NaN if there are none.

    Under the bidirectional mask each pass hides another part of the tokens. The parts depend on the seed and
    the row alone, so that they are the same for all models.

    Args:
        network: The model, in evaluation mode.
        advance: Called with the number of rows of each batch.
    """
    passes = [OnePart("mlm", 1 / PARTS, part=part) for part in range(settings.passes)]
    losses, predicted = np.zeros(len(ids)), np.zeros(len(ids))
    size = max(BATCH_TOKENS // rows.tokens, 1)
    for objective in [Objective("clm")] if mask == "causal" else passes:
        for start in range(0, len(ids), size):
            chosen = ids[start : start + size]
            batch = collate(
                [
                    make_example(
                        *rows.get(row),
                        objective,
                        vocabulary,
                        rows.tokens,
                        (settings.seed, number_of(str(row))),
                        rows.sources[row.split][row.source].longest,
                    )
                    for row in chosen
                ]
            )
            places, found = token_losses(
                network, batch["input_ids"], batch["document_lengths"], batch["labels"], objective.causal
            )
            owner = places.numpy() // rows.tokens
            losses[start : start + size] += np.bincount(owner, found.double().numpy(), len(chosen))
            predicted[start : start + size] += np.bincount(owner, minlength=len(chosen))
            advance(len(chosen))
    with np.errstate(invalid="ignore"):
        return losses / predicted

"""Operations of a phase by part, from its first rows or, before there are rows, from an assumed length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from clm_detour.config.schema import Freeze
from clm_detour.data.loader import RowStream, collate, cut_every
from clm_detour.model.families import architecture_of
from clm_detour.model.flops import Flops, Frozen, flops_per_batch
from clm_detour.recipe.freezing import frozen_layers
from clm_detour.recipe.phases import PhaseRun

SAMPLED_ROWS = 64
ASSUMED_LENGTH = 1000  # tokens of a document; attention in global layers grows with it


@dataclass(frozen=True)
class Operations:
    """Operations of a phase: matrix products of layers, attention, and prediction head with vocabulary."""

    body: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return self.body + self.attention + self.head

    @classmethod
    def of(cls, sample: Flops, times: float) -> Operations:
        """Return the operations of a sample times a number."""
        return cls(sample.linear * times, sample.attention * times, sample.head * times)


def measured(run: PhaseRun, stream: RowStream, model: Any) -> Operations:
    """Return the operations of a phase, extrapolated from its first rows."""
    rows = min(SAMPLED_ROWS, run.next_row - run.first_row)
    return Operations.of(
        count(run, *first_rows(run, stream, rows), model), (run.next_row - run.first_row) / rows
    )


def assumed(run: PhaseRun, model: Any) -> Operations:
    """Return the operations of a phase whose rows are full of documents of ASSUMED_LENGTH."""
    return Operations.of(count(run, *assumed_row(run, model), model), run.next_row - run.first_row)


def first_rows(run: PhaseRun, stream: RowStream, rows: int) -> tuple[list[int], int]:
    """Return the lengths of the documents in a phase's first rows, and the number of predicted positions."""
    batch = collate([stream.example(run.first_row + row) for row in range(rows)])
    stream.release()
    return [length for row in batch["document_lengths"] for length in row], sum(batch["predicted"])


def assumed_row(run: PhaseRun, model: Any) -> tuple[list[int], int]:
    """Return the same of one row full of documents of ASSUMED_LENGTH, or fewer if the model has fewer."""
    limit = architecture_of(model).longest
    lengths = cut_every(run.row_tokens, min(limit or ASSUMED_LENGTH, ASSUMED_LENGTH))
    rate = run.phase.mask_rate
    return lengths, run.row_tokens - len(lengths) if rate is None else round(rate * run.row_tokens)


def count(run: PhaseRun, lengths: list[int], predicted: int, model: Any) -> Flops:
    """Return the operations of forward and backward pass over a batch.

    Args:
        lengths: Length of each document.
        predicted: Number of predicted positions.
    """
    frozen = frozen_parts(run.phase.freeze, model)
    return flops_per_batch(model, lengths, predicted, causal=run.objective.causal, frozen=frozen)


def frozen_parts(settings: Freeze | None, model: Any) -> Frozen:
    """Return the frozen parts of a phase as `flops_per_batch` takes them."""
    if settings is None:
        return Frozen()
    return Frozen(frozen_layers(settings, model), settings.embeddings, settings.head)


def matched(
    arms: Iterable[list[PhaseRun]], operations: Mapping[str, Operations]
) -> dict[tuple[str, str], float]:
    """Return how much longer an MLM phase must be to cost as much as the CLM phase of another arm.

    Args:
        arms: Phases of each arm.
        operations: Operations of each phase, by its id.

    Returns:
        A dict from (id of the CLM phase, id of the MLM phase) to the factor, for arms that differ in this one
        phase only.
    """
    found = {}
    for detour, twin in product(arms, repeat=2):
        if len(detour) != len(twin):
            continue
        different = [(a, b) for a, b in zip(detour, twin, strict=True) if a.name != b.name]
        if len(different) != 1:
            continue
        (clm, mlm) = different[0]
        if not clm.objective.causal or mlm.objective.causal:
            continue
        if clm.phase.freeze == mlm.phase.freeze and clm.duration == mlm.duration:
            found[clm.id, mlm.id] = operations[clm.id].total / operations[mlm.id].total
    return found

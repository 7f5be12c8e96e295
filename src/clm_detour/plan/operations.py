"""Operations of a phase by part: of its first rows exactly, or, before there are any, of rows of documents of an assumed length."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import ModernBertConfig

from clm_detour.config.schema import Config, Freeze, Phase
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.model.flops import Flops, Frozen, flops_per_batch
from clm_detour.recipe.freezing import frozen_layers
from clm_detour.recipe.phases import PhaseRun, plan_arm
from clm_detour.recipe.stream import open_stream

SAMPLED_ROWS = 64
ASSUMED_LENGTH = 1000  # tokens of a document; attention in global layers grows with it


@dataclass(frozen=True)
class Operations:
    """Of a whole phase: layers' products, attention, prediction head with the vocabulary."""

    body: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.body + self.attention + self.head

    @classmethod
    def of(cls, sample: Flops, times: float) -> Operations:
        """Those of a sample, that often."""
        return cls(sample.linear * times, sample.attention * times, sample.head * times)


def measured(config: Config, run: PhaseRun, tokenizer: Tokenizer, model: ModernBertConfig) -> Operations:
    """From the rows that the phase starts with; the others are taken to be like them."""
    from clm_detour.data.loader import collate

    stream = open_stream(config, run, tokenizer)
    rows = range(run.first_row, min(run.first_row + SAMPLED_ROWS, run.next_row))
    batch = collate([stream.example(position) for position in rows])
    lengths = [length for row in batch["document_lengths"] for length in row]
    sample = count(run.phase, lengths, sum(batch["predicted"]), model)
    return Operations.of(sample, (run.next_row - run.first_row) / len(rows))


def assumed(run: PhaseRun, model: ModernBertConfig) -> Operations:
    """From full rows of documents of ASSUMED_LENGTH."""
    whole, rest = divmod(run.row_tokens, ASSUMED_LENGTH)
    lengths = [ASSUMED_LENGTH] * whole + ([rest] if rest else [])
    rate = run.phase.mask_rate
    predicted = run.row_tokens - len(lengths) if rate is None else round(rate * run.row_tokens)
    return Operations.of(count(run.phase, lengths, predicted, model), run.next_row - run.first_row)


def count(phase: Phase, lengths: list[int], predicted: int, model: ModernBertConfig) -> Flops:
    """Of one batch in training."""
    frozen = frozen_parts(phase.freeze, model)
    return flops_per_batch(model, lengths, predicted, causal=phase.objective == "clm", frozen=frozen)


def frozen_parts(settings: Freeze | None, model: ModernBertConfig) -> Frozen:
    """A phase's `freeze` as operations are counted by."""
    if settings is None:
        return Frozen()
    return Frozen(frozen_layers(settings, model), settings.embeddings, settings.head)


def matched(config: Config, operations: dict[str, Operations]) -> dict[tuple[str, str], float]:
    """(id of a clm phase, id of the mlm phase in its place in another arm) -> how many times longer the second must be for the
    same number of operations.
    """
    arms = [plan_arm(config, arm) for arm in config.arms]
    found = {}
    for detour in arms:
        for twin in arms:
            if len(detour) != len(twin):
                continue
            places = [(a, b) for a, b in zip(detour, twin, strict=True) if a.name != b.name]
            if len(places) == 1 and [run.phase.objective for run in places[0]] == ["clm", "mlm"]:
                first, second = places[0]
                if first.phase.freeze == second.phase.freeze and first.duration == second.duration:
                    found[first.id, second.id] = operations[first.id].total / operations[second.id].total
    return found

"""The records of a whole run but for its phases, data, tasks and analysis."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field

from clm_detour.records.store import Number, left_out_if_none

left_out_if_false = Field(exclude_if=lambda value: not value)

Arms = dict[str, list[str]]
"""`arms.json`: the ids of each arm's phases, in order.

The id of a phase is the names of the phases up to this one, joined by dots.
"""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """An item of `steps.json`, a list: a step of a recipe that was done, or one that this recipe cannot do.

    Args:
        step: The step's name in the program.
        title: The step's name for people.
        seconds, finished: Wall time, and when the step ended; None of a step that was left out.
        left_out: Why the step was left out; None of a step that was done.
    """

    step: str
    title: str
    seconds: Annotated[float | None, left_out_if_none] = None
    finished: Annotated[str | None, left_out_if_none] = None
    left_out: Annotated[str | None, left_out_if_none] = None

    def __post_init__(self) -> None:
        if self.seconds is None and self.left_out is None:
            raise ValueError("A step has `seconds` or `left_out`.")


@dataclass(frozen=True)
class PlannedPhase:
    """The floating-point operations of a phase, counted before it runs; None where they are not known."""

    operations: float | None


@dataclass(frozen=True)
class PlanRecord:
    """`plan.json`: the plan of each phase."""

    phases: dict[str, PlannedPhase]
    format: Literal[1] = 1


@dataclass(frozen=True, kw_only=True)
class Score:
    """A model's score on held-out text.

    Args:
        loss: Mean loss over the predicted tokens, in nats; NaN where it is not finite or nothing was
            predicted.
        accuracy: Share of the predicted tokens that the model's first guess gets right.
        predicted: Number of predicted tokens. 0.1.0 wrote 0 for loss and accuracy where this is 0.
    """

    loss: Number
    accuracy: Number = math.nan
    predicted: int


@dataclass(frozen=True, kw_only=True)
class Scores(Score):
    """A model's score on all held-out text, and on each source of it."""

    by_source: dict[str, Score] = field(default_factory=dict)

    @property
    def total(self) -> Score | None:
        """The score on all held-out text, or None where nothing was predicted."""
        return self if self.predicted else None

    def values(self, name: str) -> dict[str, float]:
        """Return loss and accuracy on all text, and the loss on each source, by names that begin alike."""
        if not self.predicted:
            return {}
        sources = {
            f"{name}/loss_by_source/{key}": score.loss
            for key, score in self.by_source.items()
            if score.predicted
        }
        return {f"{name}/loss": self.loss, f"{name}/accuracy": self.accuracy, **sources}

    def of(self, source: str | None) -> Score | None:
        """Return the score on a source, or on all text for None; None where nothing was predicted."""
        score = self if source is None else self.by_source.get(source)
        return score if score and score.predicted else None


def by_character(scores: Scores, characters: dict[str, int]) -> Scores:
    """Return scores with the loss in nats a character.

    Args:
        characters: Number of characters of the predicted tokens of each source.
    """

    def loss(score: Score, count: int) -> float:
        return score.loss * score.predicted / count if count else math.nan

    by_source = {
        source: replace(score, loss=loss(score, characters[source]))
        for source, score in scores.by_source.items()
    }
    return replace(scores, loss=loss(scores, sum(characters.values())), by_source=by_source)


@dataclass(frozen=True)
class HeldOutRecord:
    """`evaluation/held_out.json`: the scores of the arms' models, and of the end of every phase.

    Args:
        characters: Model or phase -> source -> number of characters of its predicted tokens; only if the
            tokenizers of the models differ.
        per_character: Whether losses are in nats a character, as `in_characters` returns them.
        general: The same on text of `evaluate.general`, which tells what was forgotten; None without it.
    """

    mask_rate: float
    models: dict[str, Scores]
    phases: dict[str, Scores]
    characters: Annotated[dict[str, dict[str, int]] | None, left_out_if_none] = None
    per_character: Annotated[bool, left_out_if_false] = False
    general: Annotated[HeldOutRecord | None, left_out_if_none] = None
    format: Literal[1] = 1

    def in_characters(self) -> HeldOutRecord:
        """Return the record with losses in nats a character, if the tokenizers of the models differ.

        The loss of a token depends on how much text it stands for; that of a character does not.
        """
        counts = self.characters
        if counts is None or self.per_character:
            return self
        models, phases = (
            {name: by_character(score, counts[name]) for name, score in scores.items()}
            for scores in (self.models, self.phases)
        )
        general = self.general and self.general.in_characters()
        return replace(self, models=models, phases=phases, general=general, per_character=True)

    @property
    def unit(self) -> str:
        """The unit of the losses."""
        return "nats per character" if self.per_character else "nats"

    @property
    def totals(self) -> dict[str, Score]:
        """The scores on all held-out text of the models that were measured."""
        return {name: scores.total for name, scores in self.models.items() if scores.total}

    @property
    def sources(self) -> list[str]:
        """All sources, in order of display."""
        return list(dict.fromkeys(source for scores in self.models.values() for source in scores.by_source))

    @property
    def unmeasured(self) -> list[str]:
        """The sources from which no text was held out."""
        models = self.models.values()
        return [name for name in self.sources if not any(scores.of(name) for scores in models)]


@dataclass(frozen=True)
class Guess:
    """A token that a model would fill in, and its probability."""

    token: str
    score: float


@dataclass(frozen=True)
class FilledMask:
    """An item of `evaluation/fill_mask.json`, a list: a held-out sentence with one word masked.

    Args:
        source: The source of the sentence.
        text: The sentence with the tokenizer's mask token.
        answer: The masked word with its leading space.
        models: The best guesses of each model, best first.
    """

    source: str
    text: str
    answer: str
    models: dict[str, list[Guess]] = field(default_factory=dict)

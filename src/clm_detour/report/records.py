"""What a run has left behind, as dataclasses, and how each is read from its JSON.

A parser raises whatever a wrong form makes Python raise; `load.py` turns that into a sentence. Phase ids are
names joined by dots, so an id tells which phases came before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clm_detour.config.schema import Config
from clm_detour.report.analysis import Comparison, Supervision, Trajectory, WeightChange
from clm_detour.report.evaluation import Evaluation


@dataclass(frozen=True)
class Score:
    """Masked-LM figures over `predicted` positions: mean loss in nats, accuracy from 0 to 1."""

    loss: float
    accuracy: float
    predicted: int


@dataclass(frozen=True)
class Scores:
    """One model on all held-out text and on each source of it; None where there is no held-out text."""

    total: Score | None
    by_source: dict[str, Score | None]


@dataclass(frozen=True)
class HeldOut:
    """The scores of the arms' ends (`models`) and of every phase's end (`phases`), in order of display."""

    mask_rate: float
    models: dict[str, Scores]
    phases: dict[str, Scores]

    @property
    def totals(self) -> dict[str, Score]:
        """The models that were measured, on all held-out text."""
        return {name: scores.total for name, scores in self.models.items() if scores.total}

    @property
    def sources(self) -> list[str]:
        """All sources, in order of display."""
        return list(dict.fromkeys(source for scores in self.models.values() for source in scores.by_source))

    @property
    def unmeasured(self) -> list[str]:
        """The sources of which no text was held out."""
        models = self.models.values()
        return [name for name in self.sources if not any(scores.by_source.get(name) for scores in models)]


@dataclass(frozen=True)
class Guess:
    """A token that a model would fill in, and its probability."""

    token: str
    score: float


@dataclass(frozen=True)
class FilledMask:
    """A held-out sentence with one `[MASK]`, what stood there, and each model's best guesses."""

    source: str
    text: str
    answer: str
    models: dict[str, list[Guess]]


@dataclass(frozen=True)
class Curve:
    """What a phase logged, one entry a logged step; tokens count from the phase's start."""

    tokens: np.ndarray
    loss: np.ndarray
    learning_rate: np.ndarray
    tokens_per_second: np.ndarray
    mfu: np.ndarray  # share of the device's peak; not a number where it was not logged, like the next two
    packing: np.ndarray  # share of the rows' positions that hold text
    data_wait: np.ndarray  # share of the time that the device waited for data


@dataclass(frozen=True)
class Watched:
    """Held-out losses while a phase trained, as a masked and as a causal language model; tokens from the phase's start.

    A loss that is not finite, or was not measured beside the other one, is not a number.
    """

    tokens: list[int]
    masked: list[float]
    causal: list[float]


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule; `settings` is all that the record says of it."""

    name: str
    peak: float
    settings: dict[str, Any]


@dataclass(frozen=True)
class PhaseEnd:
    """A finished phase's own record; rows are positions in the mixture's stream, `next_row` not included."""

    mask_rate: float | None
    mixture: str
    schedule: Schedule
    steps: int
    tokens: int
    batch_tokens: int
    first_row: int
    next_row: int
    shares: dict[str, tuple[float, float]]  # source -> (target, observed)
    seconds: float
    world_size: int
    device: str
    precision: str
    hub: (
        list[str] | None
    )  # base model and data sets that were the hub's when it ran; None in a record of 0.1.0


@dataclass(frozen=True)
class Phase:
    """One phase, finished (`end`) or under way (`curve` only)."""

    id: str
    objective: str | None
    curve: Curve | None
    end: PhaseEnd | None
    watched: Watched | None = None

    @property
    def name(self) -> str:
        """The phase's own name, without those before it."""
        return self.id.rsplit(".", 1)[-1]

    @property
    def tokens(self) -> int:
        """Tokens trained so far."""
        if self.end:
            return self.end.tokens
        return int(self.curve.tokens[-1]) if self.curve else 0


@dataclass(frozen=True)
class Split:
    """One split of a prepared source; fullness is the share of its rows' positions that hold text."""

    documents: int
    tokens: int
    rows: int
    fullness: float


@dataclass(frozen=True)
class SourceReport:
    """A prepared source, with the documents dropped for each reason."""

    splits: dict[str, Split]
    dropped: dict[str, int]


@dataclass(frozen=True)
class Step:
    """One step of the recipe and its wall time."""

    title: str
    seconds: float


@dataclass
class Run:
    """Everything that the report says comes from here."""

    name: str
    folder: Path | None = None
    config: Config | None = None
    config_text: str | None = None
    environment: dict[str, Any] | None = None
    steps: list[Step] = field(default_factory=list)
    arms: dict[str, list[str]] = field(default_factory=dict)  # arm -> phase ids
    phases: dict[str, Phase] = field(default_factory=dict)  # by id, in the arms' order
    sources: dict[str, SourceReport] = field(default_factory=dict)
    held_out: HeldOut | None = None
    filled_masks: list[FilledMask] = field(default_factory=list)
    evaluation: Evaluation | None = None
    comparison: Comparison | None = None
    weights: list[WeightChange] = field(default_factory=list)
    trajectory: Trajectory | None = None
    gradients: dict[str, Supervision] = field(default_factory=dict)
    operations: dict[str, float] = field(default_factory=dict)  # phase id -> floating-point operations
    exported: list[str] = field(default_factory=list)  # arms with a model folder
    missing: list[str] = field(default_factory=list)  # one sentence each; running again makes them
    left_out: list[str] = field(
        default_factory=list
    )  # one sentence each; running again leaves them out again


def parse_steps(raw: Any) -> list[Step]:
    """Return the steps of steps.json that had something to do."""
    return [Step(str(step["title"]), float(step["seconds"])) for step in raw if "left_out" not in step]


def parse_left_out(raw: Any) -> dict[str, str]:
    """Return why steps of steps.json cannot be done with this recipe, by their names."""
    return {str(step["step"]): str(step["left_out"]) for step in raw if "left_out" in step}


def parse_arms(raw: Any) -> dict[str, list[str]]:
    """arms.json."""
    return {str(arm): [str(id) for id in ids] for arm, ids in raw.items() if ids}


def parse_phase(raw: Any) -> tuple[str, PhaseEnd]:
    """phase.json: the objective and the rest."""
    shares = raw["shares"].items()
    end = PhaseEnd(
        mask_rate=None if raw["mask_rate"] is None else float(raw["mask_rate"]),
        mixture=str(raw["mixture"]),
        schedule=Schedule(str(raw["schedule"]["name"]), float(raw["schedule"]["peak"]), raw["schedule"]),
        steps=int(raw["steps"]),
        tokens=int(raw["tokens"]),
        batch_tokens=int(raw["batch_tokens"]),
        first_row=int(raw["first_row"]),
        next_row=int(raw["next_row"]),
        shares={name: (float(share["target"]), float(share["observed"])) for name, share in shares},
        seconds=float(raw["seconds"]),
        world_size=int(raw["world_size"]),
        device=str(raw["device"]),
        precision=str(raw["precision"]),
        hub=None if raw.get("hub") is None else [str(name) for name in raw["hub"]],
    )
    return str(raw["objective"]), end


def parse_operations(raw: Any) -> dict[str, float]:
    """plan.json: of each phase whose operations are known."""
    phases = raw["phases"].items()
    return {id: float(row["operations"]) for id, row in phases if row["operations"] is not None}


def parse_source(raw: Any) -> SourceReport:
    """data/<source>/card.json."""
    splits = {name: parse_split(split) for name, split in raw["splits"].items()}
    return SourceReport(splits, {str(reason): int(count) for reason, count in raw["dropped"].items()})


def parse_split(raw: Any) -> Split:
    """One split of it."""
    return Split(int(raw["documents"]), int(raw["tokens"]), int(raw["rows"]), float(raw["fullness"]))


def parse_held_out(raw: Any) -> HeldOut:
    """evaluation/held_out.json."""
    models = {name: parse_scores(scores) for name, scores in raw["models"].items()}
    phases = {name: parse_scores(scores) for name, scores in raw["phases"].items()}
    return HeldOut(float(raw["mask_rate"]), models, phases)


def parse_scores(raw: Any) -> Scores:
    """One model's."""
    by_source = {source: parse_score(score) for source, score in raw["by_source"].items()}
    return Scores(parse_score(raw), by_source)


def parse_score(raw: Any) -> Score | None:
    """None where nothing was predicted, for which version 0.1.0 wrote 0; a loss that is null in spite of predictions was not finite."""
    if not int(raw["predicted"]):
        return None
    loss = np.nan if raw["loss"] is None else float(raw["loss"])
    return Score(loss, float(raw["accuracy"]), int(raw["predicted"]))


def parse_filled_masks(raw: Any) -> list[FilledMask]:
    """evaluation/fill_mask.json."""
    return [
        FilledMask(
            source=str(item["source"]),
            text=str(item["text"]),
            answer=str(item["answer"]),
            models={
                model: [Guess(str(guess["token"]), float(guess["score"])) for guess in guesses]
                for model, guesses in item["models"].items()
            },
        )
        for item in raw
    ]

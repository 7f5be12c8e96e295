"""The records of the needle tests: `needles.json` and `needle_probe.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clm_detour.records.store import Interval, Number


@dataclass(frozen=True, kw_only=True)
class NeedlesRecord:
    """`needles.json`: whether models find a made-up fact in a long text, without training.

    Args:
        models: Folders.
        lengths: Tokens of a text, query included.
        positions: Places of the needle: 0 at the start, 1 just before the query.
        trials: Number of texts of each length and position.
        candidates: Number of values to choose from.
        accuracy: Model -> length x position: how often the right value has the highest logit of the
            candidates.
        chance: 1 / candidates.
        control: Model -> length: the same without a needle, which shows what the query alone reveals.
    """

    models: list[str]
    lengths: list[int]
    positions: list[float]
    trials: int
    candidates: int
    accuracy: dict[str, list[list[Number]]]
    chance: float
    control: dict[str, list[Number]]

    def __post_init__(self) -> None:
        if not {*self.models} <= self.accuracy.keys() & self.control.keys():
            raise ValueError("A model has no result.")
        if any(
            {len(self.accuracy[one]), len(self.control[one])} != {len(self.lengths)} for one in self.models
        ):
            raise ValueError("A length has no result.")


@dataclass(frozen=True)
class ProbeShare:
    """The share of the pairs of a test split that a probe answers rightly, with its Wilson interval."""

    right: int
    pairs: int
    accuracy: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """The result of one model.

    Args:
        total: Over all test pairs.
        by_length: For each length.
        epoch: The epoch of the probe that is best on validation, from 1 on.
        validation: Its accuracy on validation.
    """

    total: ProbeShare
    by_length: list[ProbeShare]
    epoch: int
    validation: float


@dataclass(frozen=True, kw_only=True)
class NeedleProbeRecord:
    """`needle_probe.json`: how well a trained probe tells true statements from false ones.

    Args:
        language: Language of the templates.
        lengths: Tokens of a text, statement included.
        positions: Places of the needle: 0 at the start, 1 just before the statement.
        pairs: Split -> number of pairs.
        seed: Seed of the pairs and of the probes.
        models: Folder -> result.
    """

    language: str
    lengths: list[int]
    positions: list[float]
    pairs: dict[str, int]
    seed: int
    level: float
    models: dict[str, ProbeResult]
    format: Literal[1] = 1

    def __post_init__(self) -> None:
        if not {"train", "test"} <= self.pairs.keys() or not self.pairs["test"]:
            raise ValueError("The number of pairs is missing.")
        if any(len(result.by_length) != len(self.lengths) for result in self.models.values()):
            raise ValueError("A length has no result.")

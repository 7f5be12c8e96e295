"""A run as the report sees it: its records, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clm_detour.config.schema import Config
from clm_detour.config.units import parse_tokens
from clm_detour.records.analysis import NetworkComparison, ObjectiveGradient, TrajectoryRecord, WeightChange
from clm_detour.records.audit import AuditRecord
from clm_detour.records.data import DataCard
from clm_detour.records.evaluation import Summary
from clm_detour.records.needles import NeedleProbeRecord, NeedlesRecord
from clm_detour.records.phase import PhaseRecord
from clm_detour.records.run import Arms, FilledMask, HeldOutRecord, StepRecord

NAMED_SLOTS = ("base", "detour", "twin", "control")
OTHER_SLOTS = ("other-1", "other-2", "other-3")


def color_slot(arm: str, arms: Iterable[str]) -> str:
    """Return the name of the color of an arm among all arms of a run."""
    if arm in NAMED_SLOTS:
        return arm
    others = [name for name in arms if name not in NAMED_SLOTS]
    return OTHER_SLOTS[others.index(arm) % len(OTHER_SLOTS) if arm in others else 0]


@dataclass(frozen=True)
class Curve:
    """The logged steps of a phase, one entry for each; NaN where something was not logged.

    Args:
        tokens: Tokens since the start of the phase.
        mfu: Share of the device's peak that the model's operations come to.
        packing: Share of the rows' positions that hold text.
        data_wait: Share of the time in which the device waited for data.
        gradient_norm: Before clipping.
    """

    tokens: np.ndarray
    loss: np.ndarray
    learning_rate: np.ndarray
    tokens_per_second: np.ndarray
    mfu: np.ndarray
    packing: np.ndarray
    data_wait: np.ndarray
    gradient_norm: np.ndarray


@dataclass(frozen=True)
class Watched:
    """Held-out losses during a phase, as a masked and as a causal language model; NaN where not measured.

    Args:
        tokens: Tokens since the start of the phase.
    """

    tokens: list[int]
    masked: list[float]
    causal: list[float]


@dataclass(frozen=True)
class Phase:
    """A phase that has finished (with `end`) or is under way (with `curve` only)."""

    id: str
    objective: str | None
    curve: Curve | None
    end: PhaseRecord | None
    watched: Watched | None = None

    @property
    def name(self) -> str:
        """The phase's own name, without the names of the phases before it."""
        return self.id.rsplit(".", 1)[-1]

    @property
    def tokens(self) -> int:
        """Tokens trained so far."""
        if self.end:
            return self.end.tokens
        return int(self.curve.tokens[-1]) if self.curve else 0


@dataclass
class Run:
    """The records of a run.

    Args:
        config_text: The recipe as YAML.
        steps: The steps that were done.
        phases: By their ids, in the order of the arms.
        operations: Id of a phase -> floating-point operations.
        exported: The arms with a model folder.
        parameters: Number of weights of the exported models.
        missing: A sentence for each record that is not there, which running the recipe again makes.
        left_out: A sentence for each record that this recipe does not make.
    """

    name: str
    folder: Path | None = None
    config: Config | None = None
    config_text: str | None = None
    environment: dict[str, Any] | None = None
    steps: list[StepRecord] = field(default_factory=list)
    arms: Arms = field(default_factory=dict)
    phases: dict[str, Phase] = field(default_factory=dict)
    sources: dict[str, DataCard] = field(default_factory=dict)
    held_out: HeldOutRecord | None = None
    filled_masks: list[FilledMask] = field(default_factory=list)
    evaluation: Summary | None = None
    comparison: NetworkComparison | None = None
    weights: list[WeightChange] = field(default_factory=list)
    trajectory: TrajectoryRecord | None = None
    gradients: dict[str, ObjectiveGradient] = field(default_factory=dict)
    needles: NeedlesRecord | None = None
    needle_probe: NeedleProbeRecord | None = None
    audit: AuditRecord | None = None
    operations: dict[str, float] = field(default_factory=dict)
    exported: list[str] = field(default_factory=list)
    parameters: int | None = None
    missing: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def color_slot(self, arm: str) -> str:
        """Return the name of an arm's color, which `page.css` and the figures share."""
        return color_slot(arm, self.arms)

    def color_slots(self, arms: Iterable[str]) -> dict[str, str]:
        """Return the name of each arm's color."""
        return {arm: self.color_slot(arm) for arm in arms}

    @property
    def names(self) -> list[str]:
        """The arms, and a base model from elsewhere that was measured, in order of display."""
        scored = self.evaluation.scored if self.evaluation else []
        names = [*(self.held_out.models if self.held_out else ()), *scored, *self.arms]
        return list(dict.fromkeys(names))

    def first_arm(self, phase_id: str) -> str:
        """Return the first arm that has the phase, to which a phase that arms share belongs."""
        return next((arm for arm, ids in self.arms.items() if phase_id in ids), phase_id)

    def arms_of(self, phase_id: str) -> list[str]:
        """Return all arms that have the phase."""
        return [arm for arm, ids in self.arms.items() if phase_id in ids]

    def start_token(self, phase_id: str) -> int:
        """Return the number of tokens trained in the phases before this one."""
        names = phase_id.split(".")
        before = [".".join(names[:i]) for i in range(1, len(names))]
        return sum(self.phases[id].tokens for id in before if id in self.phases)

    def own_phases(self, arm: str, other: str) -> list[Phase]:
        """Return the phases of `arm` that `other` does not share."""
        return [self.phases[id] for id in self.arms[arm] if id not in self.arms[other]]

    def pairs(self, first: str, second: str) -> list[tuple[Phase, Phase]]:
        """Return the phases of two arms after the shared ones, side by side, as long as both have one."""
        sides = zip(self.arms.get(first, ()), self.arms.get(second, ()), strict=False)
        return [(self.phases[one], self.phases[other]) for one, other in sides if one != other]

    def planned_tokens(self, phase: Phase) -> int:
        """Return the tokens that a phase ran for or, before its end, those that the recipe asks for."""
        if phase.end or not self.config or phase.name not in self.config.phases:
            return phase.tokens
        return parse_tokens(self.config.phases[phase.name].duration, f"phases.{phase.name}.duration")

    def schedule_name(self, phase: Phase) -> str | None:
        """Return a phase's schedule or, before its end, that of the recipe; None if neither is known."""
        if phase.end:
            return phase.end.schedule.name
        planned = self.config.phases.get(phase.name) if self.config else None
        return planned.schedule.name if planned else None

    def same_rows(self, first: str, second: str) -> bool:
        """Return whether two arms are known to have read the same rows in the same order."""
        both = self.pairs(first, second)
        if not both or len(self.arms[first]) != len(self.arms[second]):
            return False
        return all(rows_of(one) is not None and rows_of(one) == rows_of(other) for one, other in both)


def rows_of(phase: Phase) -> tuple[str, int, int] | None:
    """Return the mixture and the positions that a finished phase read."""
    end = phase.end
    return (end.mixture, end.first_row, end.next_row) if end else None

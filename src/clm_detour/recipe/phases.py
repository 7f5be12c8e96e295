"""The phases of a recipe's arms, with their steps and their place in the data stream. Arithmetic only.

The id of a phase is its path from the start of its arm, like `pretrain.clm.decay`. Arms that begin with the
same phases share them, and train them once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clm_detour.config.schema import Phase
from clm_detour.config.units import parse_tokens
from clm_detour.data.batch_size import StepRows
from clm_detour.data.objectives import Objective
from clm_detour.utils.errors import UserError


@dataclass(frozen=True)
class PhaseRun:
    """One phase of an arm.

    Args:
        id: Names of the phases from the start of the arm to this one, joined by dots.
        name: Key of the phase in the recipe.
        phase: Settings of the phase.
        parent: The phase before it in the arm.
        duration: Tokens that the recipe asks for.
        step_rows: Number of rows in each step.
        row_tokens: Tokens in a row.
        first_row: Position in the stream of its mixture at which the phase starts: that at which the last
            phase of the arm on the same mixture stopped, or 0 if the phase restarts it.
        seed: Seed of masks, dropout and a reset prediction head.
    """

    id: str
    name: str
    phase: Phase
    parent: PhaseRun | None
    duration: int
    step_rows: StepRows
    row_tokens: int
    first_row: int
    seed: int

    @property
    def objective(self) -> Objective:
        """The objective, which also sets the attention mask."""
        return Objective(self.phase.objective, self.phase.mask_rate, self.phase.mask_unit)

    @property
    def steps(self) -> int:
        """The smallest number of steps that reaches the duration."""
        return self.steps_for(self.duration)

    @property
    def warmup_steps(self) -> int:
        """Number of steps until the learning rate reaches its peak."""
        return self.steps_for(parse_tokens(self.phase.schedule.warmup, "warmup"))

    @property
    def batch_tokens(self) -> int:
        """Tokens in a step of full size."""
        return self.step_rows.full * self.row_tokens

    @property
    def tokens(self) -> int:
        """Tokens of all steps."""
        return self.step_rows.before(self.steps) * self.row_tokens

    @property
    def next_row(self) -> int:
        """Position at which the next phase on the same mixture starts."""
        return self.first_row + self.step_rows.before(self.steps)

    def steps_for(self, tokens: int) -> int:
        """Return the smallest number of steps that take at least `tokens` tokens."""
        return self.step_rows.steps_for(-(-tokens // self.row_tokens))

    @property
    def lineage(self) -> list[PhaseRun]:
        """The phases from the start of the arm to this one."""
        return [*(self.parent.lineage if self.parent else []), self]


def plan_phases(
    names: Iterable[str], phases: Mapping[str, Phase], batch_rows: int, row_tokens: int, seed: int
) -> list[PhaseRun]:
    """Return the phases of an arm, in order.

    Args:
        names: Names of the phases of the arm.
        phases: Settings of all phases of the recipe.
        batch_rows: Rows in a step of full size.
        row_tokens: Tokens in a row.
        seed: Seed of phases that set none.
    """
    runs: list[PhaseRun] = []
    for name in names:
        phase = phases[name]
        read = [run.next_row for run in runs if run.phase.mixture == phase.mixture]
        run = PhaseRun(
            id=".".join([*(run.name for run in runs), name]),
            name=name,
            phase=phase,
            parent=runs[-1] if runs else None,
            duration=parse_tokens(phase.duration, f"phases.{name}.duration"),
            step_rows=rows_of_steps(phase, batch_rows, row_tokens),
            row_tokens=row_tokens,
            first_row=read[-1] if read and phase.position == "continue" else 0,
            seed=seed if phase.seed is None else phase.seed,
        )
        runs.append(run)
    return runs


def rows_of_steps(phase: Phase, batch_rows: int, row_tokens: int) -> StepRows:
    """Return the number of rows in each step of a phase.

    Args:
        batch_rows: Rows in a step of full size.
        row_tokens: Tokens in a row.
    """
    warmup = phase.batch_warmup
    if warmup is None:
        return StepRows.constant(batch_rows)
    duration = parse_tokens(warmup.duration, "batch_warmup.duration")
    return StepRows.growing(warmup.rows, batch_rows, duration // row_tokens)


def sources_of_last_phases(
    arms: Iterable[list[PhaseRun]], mixtures: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """Return the sources of the last phases of the arms. An arm that another arm extends does not count."""
    inner = {run.parent.id for runs in arms for run in runs if run.parent is not None}
    last = [runs[-1] for runs in arms if runs[-1].id not in inner]
    return list(dict.fromkeys(name for run in last for name in mixtures[run.phase.mixture]))


def check_world_size(batch_rows: int, phases: Mapping[str, Phase], world_size: int) -> None:
    """Check that the rows of each step divide over the processes.

    Raises:
        UserError: If they do not.
    """
    check_divides("train.batch_rows", batch_rows, world_size)
    for name, phase in phases.items():
        if phase.batch_warmup is not None:
            check_divides(f"phases.{name}.batch_warmup.rows", phase.batch_warmup.rows, world_size)


def check_divides(key: str, rows: int, world_size: int) -> None:
    """Raise UserError if the rows that `key` sets do not divide over the processes."""
    if rows % world_size:
        near = max(rows // world_size, 1) * world_size
        raise UserError(
            f"{key}: {rows} rows do not divide over {world_size} processes; use for example {near} or "
            f"{near + world_size}."
        )

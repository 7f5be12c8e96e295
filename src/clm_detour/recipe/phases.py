"""A recipe's arms -> the phases to run, with their steps and their place in the stream. Arithmetic only.

A phase is known by its path from the start (`pretrain.clm.decay`). Arms that begin alike share those phases and train them once.
"""

from __future__ import annotations

from dataclasses import dataclass

from clm_detour.config.schema import Config, Phase
from clm_detour.config.units import parse_tokens
from clm_detour.data.batch_size import StepRows
from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import one_of


@dataclass(frozen=True)
class PhaseRun:
    """One phase in its place.

    `first_row` is the position in its mixture's stream where it starts: where the last phase of the arm on the same mixture stopped.
    """

    id: str
    name: str
    phase: Phase
    parent: PhaseRun | None
    duration: int  # tokens asked for
    step_rows: StepRows
    row_tokens: int
    first_row: int
    seed: int  # of masks and dropout

    @property
    def steps(self) -> int:
        """The fewest that reach the duration."""
        return self.steps_for(self.duration)

    @property
    def warmup_steps(self) -> int:
        """Steps until the learning rate has reached its peak."""
        return self.steps_for(parse_tokens(self.phase.schedule.warmup, "warmup"))

    @property
    def batch_tokens(self) -> int:
        """Tokens of a step, once the batch has its full size."""
        return self.step_rows.full * self.row_tokens

    @property
    def tokens(self) -> int:
        """Tokens of all steps."""
        return self.step_rows.before(self.steps) * self.row_tokens

    @property
    def next_row(self) -> int:
        """Where the next phase on the same mixture starts."""
        return self.first_row + self.step_rows.before(self.steps)

    def steps_for(self, tokens: int) -> int:
        """The fewest steps that take at least `tokens`."""
        return self.step_rows.steps_for(-(-tokens // self.row_tokens))

    @property
    def lineage(self) -> list[PhaseRun]:
        """The phases from the start to this one."""
        return [*(self.parent.lineage if self.parent else []), self]


def plan_arm(config: Config, arm: str) -> list[PhaseRun]:
    """The phases of one arm, in order.

    Raises:
        UserError: there is no such arm.
    """
    one_of(arm, config.arms, "arm")
    runs: list[PhaseRun] = []
    for name in config.arms[arm]:
        runs.append(plan_phase(config, name, runs))
    return runs


def plan_phase(config: Config, name: str, before: list[PhaseRun]) -> PhaseRun:
    """The next phase of an arm."""
    phase = config.phases[name]
    duration = parse_tokens(phase.duration, f"phases.{name}.duration")
    same_mixture = [run for run in before if run.phase.mixture == phase.mixture]
    return PhaseRun(
        id=".".join([*(run.name for run in before), name]),
        name=name,
        phase=phase,
        parent=before[-1] if before else None,
        duration=duration,
        step_rows=rows_of_steps(config, phase),
        row_tokens=config.data.sequence_length,
        first_row=same_mixture[-1].next_row if same_mixture else 0,
        seed=config.seed if phase.seed is None else phase.seed,
    )


def rows_of_steps(config: Config, phase: Phase) -> StepRows:
    """The phase's batch sizes."""
    rows, warmup = config.train.batch_rows, phase.batch_warmup
    if warmup is None:
        return StepRows.constant(rows)
    over = parse_tokens(warmup.duration, "batch_warmup.duration") // config.data.sequence_length
    return StepRows.growing(warmup.rows, rows, over)


def plan_recipe(config: Config) -> dict[str, PhaseRun]:
    """Every phase once, by id, parents before children."""
    runs = (run for arm in config.arms for run in plan_arm(config, arm))
    return {run.id: run for run in runs}


def domain_sources(config: Config) -> list[str]:
    """The sources of the mixtures on which the arms' last phases train, leaving out arms that others extend."""
    chains = list(config.arms.values())
    ends = [
        chain
        for chain in chains
        if not any(other[: len(chain)] == chain and other != chain for other in chains)
    ]
    names = [name for chain in ends for name in config.data.mixtures[config.phases[chain[-1]].mixture]]
    return list(dict.fromkeys(names))


def choose_phase(config: Config, arm: str, phase: str) -> PhaseRun:
    """The run that `arm=... phase=...` names.

    Raises:
        UserError: there is no such arm, or no such phase in it.
    """
    runs = {run.name: run for run in plan_arm(config, arm)}
    one_of(phase, runs, f"phase (of arm {arm})")
    return runs[phase]


def check_world(config: Config, world_size: int) -> None:
    """The rows of a step must divide over the processes.

    Raises:
        UserError: they do not.
    """
    check_divides("train.batch_rows", config.train.batch_rows, world_size)
    for name, phase in config.phases.items():
        if phase.batch_warmup is not None:
            check_divides(f"phases.{name}.batch_warmup.rows", phase.batch_warmup.rows, world_size)


def check_divides(key: str, rows: int, world_size: int) -> None:
    """One number of rows."""
    if rows % world_size:
        near = max(rows // world_size, 1) * world_size
        raise UserError(
            f"{key}: {rows} rows do not divide over {world_size} processes; use for example {near} or {near + world_size}."
        )

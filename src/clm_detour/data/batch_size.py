"""The number of rows in each step of a phase: constant, or growing to the full batch (batch-size warm-up).

The batch grows in stages. Every step of stage k takes k times the rows of the first step, and a stage begins
at the first step at which the straight line from the first size to the full one has reached that size. So the
rows of step s are `before(s)` ... `before(s + 1) - 1`, by arithmetic alone.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import NamedTuple


class Stage(NamedTuple):
    """Steps of one size: the first step, its first row, and the number of rows in each step."""

    step: int
    row: int
    rows: int


@dataclass(frozen=True)
class StepRows:
    """The number of rows in every step, without end: the last stage never ends."""

    stages: tuple[Stage, ...]

    @classmethod
    def constant(cls, rows: int) -> StepRows:
        """Return the same number of rows for every step."""
        return cls((Stage(0, 0, rows),))

    @classmethod
    def growing(cls, first: int, full: int, over: int) -> StepRows:
        """Return `first` rows for the first step, growing to `full`, a multiple of `first`.

        The increments are equal and spread over the first `over` rows of the phase.
        """
        assert full % first == 0, (first, full)
        sizes = full // first
        stages, step, row = [], 0, 0
        for size in range(1, sizes):
            reached = -(-over * size // (sizes - 1))  # the row where the line comes to the next size
            steps = max(-(-(reached - row) // (size * first)), 0)
            if steps:
                stages.append(Stage(step, row, size * first))
            step, row = step + steps, row + steps * size * first
        return cls((*stages, Stage(step, row, full)))

    @property
    def full(self) -> int:
        """Number of rows in a step at the end of the growth."""
        return self.stages[-1].rows

    @property
    def smallest(self) -> int:
        """Number of rows in the first step, which divides that of every other step."""
        return self.stages[0].rows

    def rows(self, step: int) -> int:
        """Return the number of rows in a step."""
        return self._stage(step).rows

    def before(self, step: int) -> int:
        """Return the number of rows in all steps before `step`."""
        stage = self._stage(step)
        return stage.row + (step - stage.step) * stage.rows

    def steps_for(self, rows: int) -> int:
        """Return the smallest number of steps that take at least `rows` rows."""
        stage = self.stages[bisect.bisect_right(self.stages, rows, key=lambda stage: stage.row) - 1]
        return stage.step - (-(rows - stage.row) // stage.rows)

    def _stage(self, step: int) -> Stage:
        return self.stages[bisect.bisect_right(self.stages, step, key=lambda stage: stage.step) - 1]

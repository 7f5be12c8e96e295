"""How many rows each step of a phase takes: the same from the start, or growing to it (batch-size warm-up).

Growth is in stages: every step of stage k takes k times the rows of the first, and a stage begins at the first step that the straight
line from the first size to the full one has reached. So step s covers rows `before(s)` ... `before(s + 1) - 1` by arithmetic alone.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import NamedTuple


class Stage(NamedTuple):
    """Steps of one size: where they begin, and how many rows each takes."""

    step: int
    row: int
    rows: int


@dataclass(frozen=True)
class StepRows:
    """Rows of every step, without end; the last stage never ends."""

    stages: tuple[Stage, ...]

    @classmethod
    def constant(cls, rows: int) -> StepRows:
        """The same in every step."""
        return cls((Stage(0, 0, rows),))

    @classmethod
    def growing(cls, first: int, full: int, over: int) -> StepRows:
        """From `first` rows to `full`, a multiple of it, in equal increments spread over the first `over` rows of the phase."""
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
        """Rows of a step at the end of the growth."""
        return self.stages[-1].rows

    @property
    def smallest(self) -> int:
        """Rows of the first step, which divide those of every other."""
        return self.stages[0].rows

    def rows(self, step: int) -> int:
        """Rows of one step."""
        return self._stage(step).rows

    def before(self, step: int) -> int:
        """Rows of all steps before `step`."""
        stage = self._stage(step)
        return stage.row + (step - stage.step) * stage.rows

    def steps_for(self, rows: int) -> int:
        """The fewest steps that take at least `rows` rows."""
        stage = self.stages[bisect.bisect_right(self.stages, rows, key=lambda stage: stage.row) - 1]
        return stage.step - (-(rows - stage.row) // stage.rows)

    def _stage(self, step: int) -> Stage:
        return self.stages[bisect.bisect_right(self.stages, step, key=lambda stage: stage.step) - 1]

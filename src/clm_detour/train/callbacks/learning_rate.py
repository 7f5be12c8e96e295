"""Sets the learning rate at the start of each step."""

from __future__ import annotations

from composer.core import Callback, State
from composer.loggers import Logger

from clm_detour.recipe.schedules import RateFunction


class LearningRate(Callback):
    """The rate is `rate(tokens seen in the phase)`, and nothing else is remembered, so resuming needs nothing."""

    def __init__(self, rate: RateFunction):
        self.rate = rate

    def batch_start(self, state: State, logger: Logger) -> None:
        """Set it in every group."""
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate(state.timestamp.token.value)

"""Callbacks that act at the start of each step: they set the learning rate and the seed of dropout."""

from __future__ import annotations

import numpy as np
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from clm_detour.recipe.schedules import RateFunction
from clm_detour.train.parallel import is_true_on_any_process


class LearningRate(Callback):
    """Sets the learning rate to `rate(tokens seen in the phase)`. It has no state, so resuming needs none."""

    def __init__(self, rate: RateFunction):
        self.rate = rate

    def batch_start(self, state: State, logger: Logger) -> None:
        """Set the rate of every parameter group."""
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate(state.timestamp.token.value)


class DataArrives(Callback):
    """Lets all processes wait until each has its rows, if these are downloaded.

    Otherwise the others would wait in a collective of the step, which has a time limit.
    """

    def after_dataloader(self, state: State, logger: Logger) -> None:
        """Wait for the process whose rows arrive last."""
        is_true_on_any_process(False)


class DropoutSeed(Callback):
    """Seeds the random number generators, which only dropout uses, from (seed, row, process).

    So resuming needs no state.

    Args:
        first_row: Position in the stream at the start of the phase.
    """

    def __init__(self, seed: int, first_row: int):
        self.seed = seed
        self.first_row = first_row

    def batch_start(self, state: State, logger: Logger) -> None:
        """Seed the generators of the CPU and of this process's GPU.

        `torch.manual_seed` would do the same, but where there is no GPU it keeps each call for later, and so
        uses more and more memory.
        """
        key = [self.seed, self.first_row + state.timestamp.sample.value, dist.get_global_rank()]
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed(seed)

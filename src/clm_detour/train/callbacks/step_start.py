"""Seeds the dice of each step, which only dropout throws."""

from __future__ import annotations

import numpy as np
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist


class Dropout(Callback):
    """What is dropped follows from (seed, row, process), so resuming needs no state of a generator.

    Args:
        first_row: the stream's position at the start of the phase.
    """

    def __init__(self, seed: int, first_row: int):
        self.seed = seed
        self.first_row = first_row

    def batch_start(self, state: State, logger: Logger) -> None:
        """Seed the CPU and this process' GPU; `torch.manual_seed` would do the same, but remembers each call where there is no GPU."""
        key = [self.seed, self.first_row + state.timestamp.sample.value, dist.get_global_rank()]
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed(seed)

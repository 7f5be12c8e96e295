"""An exponential moving average of the weights. It does not influence training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from torch.optim.swa_utils import get_ema_multi_avg_fn

from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.weights import read_tensors
from clm_detour.train.callbacks.clock import tokens_before
from clm_detour.train.parallel import save_gathered, shard_like


class Average(Callback):
    """The moving average of the trained weights, in fp32.

    It starts at the weights with which the phase starts. After each step of n tokens: average <- d * average
    + (1 - d) * weights, where d = 2 ** (-n / half_life). The update is torch's, since Composer's EMA counts
    in steps and is stored in Composer's own checkpoints.

    Args:
        half_life: Number of tokens after which the weight of a step is halved.
        saved: File in the checkpoint from which the phase resumes; None if it starts.
    """

    def __init__(self, network: ModernBertForPretraining, half_life: int, saved: Path | None):
        self.weights = {name: each for name, each in network.named_parameters() if each.requires_grad}
        self.half_life = half_life
        self.saved = saved
        self.averages: dict[str, torch.Tensor] = {}

    def fit_start(self, state: State, logger: Logger) -> None:
        """Initialize or load the average, on the device to which the weights have been moved by now.

        Raises:
            UserError: If the file is missing or damaged.
        """
        if self.saved is None:
            self.averages = {name: weight.detach().clone() for name, weight in self.weights.items()}
            return
        saved = read_tensors(self.saved, "delete that checkpoint to resume from the one before")
        self.averages = {name: shard_like(weight, saved[name]) for name, weight in self.weights.items()}

    def batch_end(self, state: State, logger: Logger) -> None:
        """Update the average after a step."""
        decay = 2 ** (-(state.timestamp.token.value - tokens_before(state)) / self.half_life)
        get_ema_multi_avg_fn(decay)(list(self.averages.values()), list(self.weights.values()), 0)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Put the average in the place of the weights while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self.weights.items():
            kept = weight.detach().clone()
            weight.copy_(self.averages[name])
            self.averages[name] = kept

    def save(self, path: Path) -> None:
        """Write the average by parameter name. Every process must call it."""
        save_gathered(self.averages, path)

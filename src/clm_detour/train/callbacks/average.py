"""An exponential moving average of the weights, kept beside them: training does not see it."""

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
from clm_detour.train.parallel import save_whole, share_of


class Average(Callback):
    """After each step of n tokens: average <- d * average + (1 - d) * weights, d = 2 ** (-n / half_life); fp32, of the trained weights only.

    It starts at the weights that the phase starts from. Composer's own EMA counts in steps and lives in Composer's checkpoints, so torch's
    update is used.

    Args:
        half_life: tokens after which a step counts half.
        saved: the file of the checkpoint that the phase goes on from, if it does.
    """

    def __init__(self, network: ModernBertForPretraining, half_life: int, saved: Path | None):
        self.weights = {name: each for name, each in network.named_parameters() if each.requires_grad}
        self.half_life = half_life
        self.saved = saved
        self.averages: dict[str, torch.Tensor] = {}

    def fit_start(self, state: State, logger: Logger) -> None:
        """Start it, or go on with it, on the device where the weights are by now.

        Raises:
            UserError: the file is missing or damaged.
        """
        if self.saved is None:
            self.averages = {name: weight.detach().clone() for name, weight in self.weights.items()}
            return
        saved = read_tensors(self.saved, "delete that checkpoint to go on from the one before")
        self.averages = {name: share_of(saved[name], weight) for name, weight in self.weights.items()}

    def batch_end(self, state: State, logger: Logger) -> None:
        """One more step."""
        decay = 2 ** (-(state.timestamp.token.value - tokens_before(state)) / self.half_life)
        get_ema_multi_avg_fn(decay)(list(self.averages.values()), list(self.weights.values()), 0)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put it in the place of the weights while the block runs."""
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
        """Write it by parameter name; every process must call it."""
        save_whole(self.averages, path)

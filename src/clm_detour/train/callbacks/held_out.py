"""Losses on held-out rows while a phase trains, masked and causal, each under its own attention mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from composer.core import Callback, State
from composer.loggers import Logger

from clm_detour.measure.held_out import HeldOut
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.records.phase import HeldOutStep
from clm_detour.train.callbacks.clock import is_last_step, passed
from clm_detour.train.callbacks.metrics import JsonLines
from clm_detour.train.loggers import PhaseLog
from clm_detour.train.parallel import is_main_process, wait_for_main_process


class HeldOutLoss(Callback):
    """Writes scores of the network to held_out.jsonl.

    It scores at the start of a phase, at each multiple of `every_tokens` and at the end. Weights, optimizer,
    random number generators and data stream are not changed, so a phase ends with the same bits with and
    without it. Every process scores all rows, since a sharded network must run on all processes.

    Args:
        path: File to which a line is added each time.
        scorers: One scorer for `mlm` and one for `clm`.
        bf16: Whether to compute under bf16 autocast, as in training.
        log: The loggers.
    """

    def __init__(
        self,
        path: Path,
        network: ModernBertForPretraining,
        scorers: Sequence[HeldOut],
        every_tokens: int,
        bf16: bool,
        log: PhaseLog,
    ):
        self.lines = JsonLines(path)
        self.network = network
        self.scorers = scorers
        self.every_tokens = every_tokens
        self.bf16 = bf16
        self.log = log

    def fit_start(self, state: State, logger: Logger) -> None:
        """Score before the first step, or cut the file back to the step at which the phase resumes."""
        step = state.timestamp.batch.value
        if is_main_process():
            self.lines.keep(step if step else -1)  # step 0 is scored again
        if step == 0:
            self._score(state)

    def batch_end(self, state: State, logger: Logger) -> None:
        """Score after a step that passed a multiple of `every_tokens`, and after the last."""
        if passed(self.every_tokens, state) or is_last_step(state):
            self._score(state)

    def _score(self, state: State) -> None:
        with torch.autocast(self.network.device.type, torch.bfloat16, enabled=self.bf16):
            scores = {scorer.kind: scorer.score(self.network, lambda rows: None) for scorer in self.scorers}
        clock = state.timestamp
        if is_main_process():
            step = HeldOutStep(step=clock.batch.value, tokens=clock.token.value, **scores)
            self.lines.append(step)
        wait_for_main_process()
        for kind, score in scores.items():
            self.log.log(score.values(f"held_out/{kind}"), clock.batch.value, clock.token.value)

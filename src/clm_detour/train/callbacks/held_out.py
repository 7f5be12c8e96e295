"""Loss on held-out rows while a phase trains, as a masked and as a causal language model, each in its own attention mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger

from clm_detour.measure.held_out import HeldOut
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.train.callbacks.clock import is_last_step, passed
from clm_detour.train.callbacks.metrics import JsonLines
from clm_detour.train.parallel import is_first
from clm_detour.utils.files import finite


class HeldOutLoss(Callback):
    """Scores at the start of a phase, at each multiple of `every_tokens`, and at the end; a line each in held_out.jsonl.

    The weights, the optimizer, the dice and the stream are not touched, so a phase ends with the same bits without it. Every process
    scores all rows, since a sharded network runs on all or none.

    Args:
        judges: one for `mlm` and one for `clm`.
        bf16: as in training.
    """

    def __init__(
        self,
        path: Path,
        network: ModernBertForPretraining,
        judges: Sequence[HeldOut],
        every_tokens: int,
        bf16: bool,
    ):
        self.lines = JsonLines(path)
        self.network = network
        self.judges = judges
        self.every_tokens = every_tokens
        self.bf16 = bf16

    def fit_start(self, state: State, logger: Logger) -> None:
        """Before the first step, or cut the file back to where the run resumes."""
        step = state.timestamp.batch.value
        if is_first():
            self.lines.keep(step if step else -1)  # step 0 is scored anew
        if step == 0:
            self._score(state, logger)

    def batch_end(self, state: State, logger: Logger) -> None:
        """After a step that passed a multiple, and after the last."""
        if passed(self.every_tokens, state) or is_last_step(state):
            self._score(state, logger)

    def _score(self, state: State, logger: Logger) -> None:
        with torch.autocast(self.network.device.type, torch.bfloat16, enabled=self.bf16):
            scores: dict[str, Any] = {}
            for judge in self.judges:
                scores[judge.kind] = judge.score(self.network, lambda rows: None)
        if is_first():
            clock = state.timestamp
            line = {"step": clock.batch.value, "tokens": clock.token.value, **scores}
            self.lines.append(line)
        losses = {f"held_out/{kind}": score["loss"] for kind, score in scores.items() if score["predicted"]}
        logger.log_metrics({name: loss for name, loss in losses.items() if finite(loss) is not None})

"""Hugging Face folders on the way: what the weights were after so many tokens of the phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from composer.core import Callback, State
from composer.loggers import Logger

from clm_detour.train.callbacks.clock import tokens_before
from clm_detour.train.finish import Models
from clm_detour.train.parallel import is_first
from clm_detour.utils.progress import console


class Exports(Callback):
    """Writes `tokens-N` after the first step that has reached N tokens, for each N, and `ema-tokens-N` where an average is kept."""

    def __init__(self, folder: Path, models: Models, at: Sequence[int]):
        self.folder = folder
        self.models = models
        self.at = at

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Write those that this step reached."""
        step, now = state.timestamp.batch.value, state.timestamp.token.value
        for tokens in self.at:
            if tokens_before(state) < tokens <= now:
                target = self.folder / f"tokens-{tokens}"
                self.models.write(step, now, target, target.with_name(f"ema-{target.name}"))
                if is_first():
                    console.print(f"Exported {target} at step {step}.", soft_wrap=True)

"""Hugging Face folders on the way: what the weights were after so many tokens of the phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from composer.core import Callback, State
from composer.loggers import Logger

from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.progress import console
from clm_detour.train.callbacks.clock import tokens_before
from clm_detour.train.export import write_model
from clm_detour.train.parallel import is_first, whole_network


class Exports(Callback):
    """Writes `tokens-N` after the first step that has reached N tokens, for each N.

    Args:
        about: of the phase, for the metadata.
    """

    def __init__(
        self,
        folder: Path,
        network: ModernBertForPretraining,
        tokenizer: str,
        at: Sequence[int],
        about: dict[str, Any],
    ):
        self.folder = folder
        self.network = network
        self.tokenizer = tokenizer
        self.at = at
        self.about = about

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Write those that this step reached."""
        now, before = state.timestamp, tokens_before(state)
        for tokens in self.at:
            if before < tokens <= now.token.value:
                network = whole_network(self.network)
                if is_first():
                    about = {**self.about, "step": now.batch.value, "tokens": now.token.value}
                    write_model(network, self.tokenizer, self.folder / f"tokens-{tokens}", about)
                    console.print(
                        f"Exported {self.folder / f'tokens-{tokens}'} at step {now.batch.value}.",
                        soft_wrap=True,
                    )

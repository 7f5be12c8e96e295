"""Write Hugging Face folders of a phase: after a given number of its tokens, and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from composer.core import Callback, State
from composer.loggers import Logger

from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.export import about_phase, write_model
from clm_detour.train.callbacks.average import Average
from clm_detour.train.callbacks.clock import tokens_before
from clm_detour.train.parallel import gather_network, is_main_process, run_on_main_process
from clm_detour.train.setup import Setup
from clm_detour.utils.progress import console


class ModelWriter:
    """Writes the weights of a phase, and their moving average if there is one, as Hugging Face folders."""

    def __init__(self, setup: Setup, network: ModernBertForPretraining, average: Average | None):
        self.setup = setup
        self.network = network
        self.average = average

    def write(self, step: int, tokens: int, last: Path, ema: Path) -> None:
        """Write the weights to `last` and their moving average to `ema`. Every process must call it.

        Args:
            step: Number of steps done.
            tokens: Number of tokens seen.
        """
        self._write(step, tokens, last, "last")
        if self.average is not None:
            with self.average.swapped_in():
                self._write(step, tokens, ema, "ema")

    def _write(self, step: int, tokens: int, folder: Path, weights: str) -> None:
        network, recipe = gather_network(self.network), self.setup.recipe

        def write() -> None:
            about = about_phase(self.setup.run, recipe.public_config(), step, tokens, weights)
            write_model(network, recipe.tokenizer_path, folder, about)

        run_on_main_process(write)


class Exports(Callback):
    """Writes `tokens-N`, and `ema-tokens-N` if there is an average, after the step that reaches N tokens."""

    def __init__(self, folder: Path, models: ModelWriter, at: Sequence[int]):
        self.folder = folder
        self.models = models
        self.at = at

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Write the folders that this step reached."""
        step, now = state.timestamp.batch.value, state.timestamp.token.value
        for tokens in self.at:
            if tokens_before(state) < tokens <= now:
                target = self.folder / f"tokens-{tokens}"
                self.models.write(step, now, target, target.with_name(f"ema-{target.name}"))
                if is_main_process():
                    console.print(f"Exported {target} at step {step}.", soft_wrap=True)

"""The network while and after it trains, as Hugging Face folders; and beside it the moving average of its weights, if one is kept."""

from __future__ import annotations

from pathlib import Path

from clm_detour.config.schema import Config
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.train.callbacks.average import Average
from clm_detour.train.export import about_phase, tokenizer_path, write_model
from clm_detour.train.parallel import is_first, whole_network
from clm_detour.train.recipe import PhaseRun


class Models:
    """Writes them. Every process must call it."""

    def __init__(
        self, config: Config, run: PhaseRun, network: ModernBertForPretraining, average: Average | None
    ):
        self.config = config
        self.run = run
        self.network = network
        self.average = average

    def write(self, step: int, tokens: int, last: Path, ema: Path) -> None:
        """The weights as they are into the folder `last`, and their average into `ema`."""
        self._write(step, tokens, last, "last")
        if self.average is not None:
            with self.average.in_place():
                self._write(step, tokens, ema, "ema")

    def _write(self, step: int, tokens: int, folder: Path, weights: str) -> None:
        network = whole_network(self.network)
        if is_first():
            about = about_phase(self.config, self.run, step, tokens, weights)
            write_model(network, tokenizer_path(self.config), folder, about)

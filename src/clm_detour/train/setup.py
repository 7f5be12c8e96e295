"""What a phase is trained with: its config and folder, the tokenizer, the rows, and where it goes on."""

from __future__ import annotations

from dataclasses import dataclass

from clm_detour.config.schema import Config
from clm_detour.data.loader import RowStream
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.run_folder import PhaseFolder, RunFolder
from clm_detour.train.checkpoints import Checkpoint
from clm_detour.train.export import tokenizer_path
from clm_detour.train.recipe import PhaseRun
from clm_detour.train.stream import open_stream


@dataclass(frozen=True)
class Setup:
    """All of it.

    Args:
        resumed: the phase's own checkpoint that it goes on from; None: it starts.
    """

    config: Config
    run: PhaseRun
    folder: PhaseFolder
    tokenizer: Tokenizer
    stream: RowStream
    resumed: Checkpoint | None = None

    @classmethod
    def open(cls, config: Config, run: PhaseRun, resumed: Checkpoint | None = None) -> Setup:
        """Open the tokenizer and the prepared rows.

        Raises:
            UserError: as `open_stream`.
        """
        tokenizer = load_tokenizer(tokenizer_path(config))
        folder = RunFolder.of(config).phase(run.id)
        return cls(config, run, folder, tokenizer, open_stream(config, run, tokenizer), resumed)

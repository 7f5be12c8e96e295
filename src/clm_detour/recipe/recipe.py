"""A checked config with everything that follows from it: folder, arms, phases, tokenizer and prepared data.

A `Recipe` is made once, when a command starts, and handed on. A function that needs only a part of it takes that part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clm_detour.config.schema import Config
from clm_detour.data.loader import RowStream
from clm_detour.data.packing import PackedSource
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.recipe.export import tokenizer_path
from clm_detour.recipe.phases import PhaseRun, domain_sources, plan_arm
from clm_detour.recipe.stream import open_sources, open_stream
from clm_detour.records.run_folder import RunFolder


@dataclass(frozen=True)
class Recipe:
    """A config and what follows from it, each part resolved when it is first used, and only once."""

    config: Config

    @cached_property
    def folder(self) -> RunFolder:
        """The paths below `run_dir`."""
        return RunFolder(Path(self.config.run_dir))

    @cached_property
    def arms(self) -> dict[str, list[PhaseRun]]:
        """The phases of each arm, in order."""
        return {arm: plan_arm(self.config, arm) for arm in self.config.arms}

    @cached_property
    def phases(self) -> dict[str, PhaseRun]:
        """Each phase once, by its id, parents before children."""
        return {run.id: run for runs in self.arms.values() for run in runs}

    @cached_property
    def domain_sources(self) -> list[str]:
        """The sources on which the last phases of the arms train."""
        return domain_sources(self.config)

    @property
    def tokenizer_path(self) -> str:
        """The tokenizer's folder or hub id.

        Raises:
            UserError: If the run has yet to train it.
        """
        return tokenizer_path(self.config)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            UserError: If the run has yet to train it, or it cannot be read.
        """
        return load_tokenizer(self.tokenizer_path)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the tokenizer exists already."""
        return self.config.tokenizer.path is not None or (self.folder.tokenizer / "tokenizer.json").exists()

    def open_sources(self, names: list[str], split: str) -> dict[str, PackedSource]:
        """Open the packed rows of prepared sources; `split` is `train` or `held_out`."""
        return open_sources(self.config, names, split, self.tokenizer)

    def stream(self, run: PhaseRun) -> RowStream:
        """Return the rows of a phase, opened once."""
        if run.id not in self._streams:
            self._streams[run.id] = open_stream(self.config, run, self.tokenizer)
        return self._streams[run.id]

    @cached_property
    def _streams(self) -> dict[str, RowStream]:
        return {}

"""A checked config with everything that follows from it: folder, arms, phases, tokenizer and prepared data.

A `Recipe` is made once, when a command starts, and handed on. A function that needs only a part of it takes
that part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clm_detour.config.schema import Config
from clm_detour.data.loader import RowStream
from clm_detour.data.packing import PackedSource
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.model import hf
from clm_detour.recipe.phases import PhaseRun, check_world_size, plan_phases, sources_of_last_phases
from clm_detour.recipe.prepared import PreparedData
from clm_detour.recipe.settings import check_unchanged, data_settings, recipe_settings
from clm_detour.recipe.start import longest_document
from clm_detour.recipe.stream import make_stream
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.errors import UserError
from clm_detour.utils.hub import is_hub_id
from clm_detour.utils.rules import one_of


@dataclass(frozen=True)
class Recipe:
    """A config and what follows from it. Each part is resolved when it is first used, and only once."""

    config: Config

    @cached_property
    def folder(self) -> RunFolder:
        """Paths below `run_dir`."""
        return RunFolder(Path(self.config.run_dir))

    @cached_property
    def arms(self) -> dict[str, list[PhaseRun]]:
        """Phases of each arm, in order."""
        config = self.config
        rows, tokens = config.train.batch_rows, config.data.sequence_length
        return {
            arm: plan_phases(names, config.phases, rows, tokens, config.seed)
            for arm, names in config.arms.items()
        }

    @cached_property
    def phases(self) -> dict[str, PhaseRun]:
        """Each phase once, by its id. A phase comes after its parent."""
        return {run.id: run for runs in self.arms.values() for run in runs}

    def arm(self, name: str) -> list[PhaseRun]:
        """Return the phases of an arm, in order.

        Raises:
            UserError: If there is no such arm.
        """
        one_of(name, self.arms, "arm")
        return self.arms[name]

    def phase(self, arm: str, name: str) -> PhaseRun:
        """Return the phase that `arm=... phase=...` selects.

        Raises:
            UserError: If there is no such arm, or no such phase in it.
        """
        runs = {run.name: run for run in self.arm(arm)}
        one_of(name, runs, f"phase (of arm {arm})")
        return runs[name]

    @cached_property
    def domain_sources(self) -> list[str]:
        """Sources of the last phases of the arms, without that of general text if there are others.

        An arm that another arm extends does not count.
        """
        found = sources_of_last_phases(self.arms.values(), self.config.data.mixtures)
        return [name for name in found if name != self.config.evaluate.general] or found

    @property
    def has_original_tokenizer(self) -> bool:
        """True if the tokenizer to which `tokenizer.add` adds tokens exists already."""
        return self.config.tokenizer.path is not None or (self.folder.tokenizer / "tokenizer.json").exists()

    @property
    def has_tokenizer(self) -> bool:
        """True if the tokenizer exists already."""
        if not self.adds_tokens:
            return self.has_original_tokenizer
        return (self.folder.extended_tokenizer / "tokenizer.json").exists()

    @property
    def original_tokenizer_path(self) -> str:
        """Folder or hub id of the tokenizer without the tokens that the run added.

        This is the one that the config names, or the one that the run trained.

        Raises:
            UserError: If the run has not trained it yet.
        """
        if self.config.tokenizer.path is not None:
            return hf.as_folder(self.config.tokenizer.path)
        if not self.has_original_tokenizer:
            raise no_tokenizer(self.folder.tokenizer)
        return str(self.folder.tokenizer)

    @property
    def tokenizer_path(self) -> str:
        """Folder or hub id of the tokenizer.

        Raises:
            UserError: If the run has not trained or extended it yet.
        """
        if not self.adds_tokens:
            return self.original_tokenizer_path
        if not self.has_tokenizer:
            raise no_tokenizer(self.folder.extended_tokenizer)
        return str(self.folder.extended_tokenizer)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            UserError: If the run has not trained or extended it yet, or it cannot be read.
        """
        return load_tokenizer(self.tokenizer_path)

    @property
    def start(self) -> str | None:
        """Folder or hub id of the weights from which the arms start; None for new ones.

        This is `model.base`, or the folder in which it has embeddings for added tokens.
        """
        base = self.config.model.base
        return str(self.folder.start) if base is not None and self.adds_tokens else base

    @property
    def adds_tokens(self) -> bool:
        """True if the run adds tokens to the tokenizer, which `model.base` then does not know."""
        return self.config.tokenizer.add is not None

    @cached_property
    def longest_document(self) -> int | None:
        """Number of tokens at which documents are cut for the positions of `model.base`.

        None if it has no limit, or one that is no shorter than a row.

        Raises:
            UserError: If the network does not compute the base.
        """
        limit = longest_document(self.config.model.base)
        return None if limit is None or limit >= self.config.data.sequence_length else limit

    @cached_property
    def prepared(self) -> PreparedData:
        """Folders of the prepared sources."""
        return PreparedData(self.config.data)

    def open_sources(self, names: Iterable[str], split: str) -> dict[str, PackedSource]:
        """Open the packed rows of prepared sources; `split` is `train` or `held_out`.

        Raises:
            UserError: If a source is not prepared, is damaged, or was prepared with another tokenizer.
        """
        return self.prepared.open(names, split, self.tokenizer.fingerprint)

    def stream(self, run: PhaseRun) -> RowStream:
        """Return the rows of a phase, with inputs and labels. Only the first call opens the sources.

        Raises:
            UserError: If a source cannot be opened, has longer documents than the model reads, would be
                repeated more often than its `max_epochs`, or the cache is too small.
        """
        if run.id not in self._streams:
            sources = self.open_sources(self.config.data.mixtures[run.phase.mixture], "train")
            self._check_longest(sources)
            self._streams[run.id] = make_stream(self.config.data, run, sources, self.tokenizer)
        return self._streams[run.id]

    def _check_longest(self, sources: Mapping[str, PackedSource]) -> None:
        limit = self.longest_document
        for name, source in sources.items():
            longest = source.longest or source.row_length
            if limit is not None and longest > limit:
                raise UserError(
                    f"Source {name} is prepared with documents of up to {longest:,} tokens, but model.base "
                    f"has positions for {limit:,}: run `clm-detour prepare` with this recipe."
                )

    @cached_property
    def _streams(self) -> dict[str, RowStream]:
        return {}

    def settings(self, run: PhaseRun) -> dict[str, Any]:
        """Return the settings on which the weights of a phase depend.

        Raises:
            UserError: As `stream`.
        """
        sources = self.stream(run).sources
        data = data_settings(self.prepared, sources, self.tokenizer.fingerprint)
        return {**recipe_settings(self.config, run), **data}

    def is_finished(self, run: PhaseRun) -> bool:
        """Return whether a phase has been trained to its end.

        Raises:
            UserError: If it was started with other settings, or its data is not prepared.
        """
        folder = self.folder.phase(run.id)
        check_unchanged(folder, self.config.data.dir, self.settings(run))
        return folder.finished

    def check_world_size(self, world_size: int) -> None:
        """Check that the rows of each step divide over the processes.

        Raises:
            UserError: If they do not.
        """
        check_world_size(self.config.train.batch_rows, self.config.phases, world_size)

    @property
    def hub_names(self) -> list[str]:
        """Ids of the base model and the data sets that are opened from the Hugging Face Hub."""
        config = self.config
        datasets = [source.path for source in config.data.sources.values() if source.format == "hub"]
        names = [*([config.model.base] if config.model.base else []), *datasets]
        return [name for name in dict.fromkeys(names) if is_hub_id(name)]

    def public_config(self) -> dict[str, Any]:
        """Return the config as a dict that names no folders of this machine, to be published with a model."""
        return without_folders(asdict(self.config))


def no_tokenizer(folder: Path) -> UserError:
    """Return the error for a tokenizer that the run has yet to make."""
    return UserError(
        f"{folder} has no tokenizer yet; run clm-detour prepare first, which makes it and prepares the data."
    )


def without_folders(value: Any) -> Any:
    """Return `value` with each absolute path in it replaced by its last name."""
    if isinstance(value, dict):
        return {key: without_folders(child) for key, child in value.items()}
    if isinstance(value, list):
        return [without_folders(child) for child in value]
    if isinstance(value, str) and value.startswith(("/", "~/", "file:/")):
        return Path(value).name
    return value

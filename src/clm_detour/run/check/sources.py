"""Check the sources of a recipe and the data prepared from them, without preparing anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clm_detour.config.schema import NearDuplicates, Source
from clm_detour.data.cache import is_remote
from clm_detour.data.origin import Origin, origin_in
from clm_detour.data.packing import PackedSource, is_packed
from clm_detour.data.prepare import is_done
from clm_detour.data.shards import SPLITS, TokenShards
from clm_detour.data.sources import OnError, check_first_record, read_documents, source_stamps
from clm_detour.data.storage import folder_at
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.recipe.prepared import PreparedData
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import console

COUNTED_BYTES = 2**22  # the documents of larger sources are not counted before they are prepared


@dataclass(frozen=True)
class RecipeSource:
    """A source of a recipe, and what can be known about it without preparing it.

    Args:
        settings: Settings of the source.
        prepared: Folders of the prepared sources.
        written_by_run: Whether it belongs to the bundled sample, which the run itself writes.
    """

    name: str
    settings: Source
    prepared: PreparedData
    written_by_run: bool

    @property
    def folder(self) -> str:
        """Path or URL of the prepared data."""
        return self.prepared.folder(self.name)

    @property
    def prepared_elsewhere(self) -> bool:
        """Return whether the recipe only reads the prepared data."""
        return self.prepared.is_elsewhere(self.name)

    @property
    def on_error(self) -> OnError:
        """Return the rule for broken records."""
        return self.prepared.settings.on_error

    @property
    def has_held_out(self) -> bool:
        """Return whether the held-out documents are prepared, on this machine."""
        return Path(self.folder, "held_out", "index.json").exists()

    def is_small(self) -> bool:
        """Return whether the source is here and small, so that its documents can be counted by reading it."""
        source = self.settings
        if isinstance(source.deduplicate, NearDuplicates) or self.prepared.settings.deduplicate:
            return False  # preparing shows which documents are left out
        if self.written_by_run or source.format == "hub" or is_remote(source.path):
            return False
        return sum(file["size"] for file in source_stamps(source)) <= COUNTED_BYTES

    def documents(self) -> Iterable[str]:
        """Yield the documents of the source as preparing would read them."""
        return read_documents(self.settings, on_error=self.on_error)

    def training_rows(self) -> PackedSource | None:
        """Return the prepared training rows; None if there are none."""
        try:
            return PackedSource.open(f"{self.folder}/train", self.prepared.settings.sequence_length)
        except UserError:
            return None

    def changed_origin(self, tokenizer: Tokenizer, longest: int | None) -> tuple[Origin, Origin] | None:
        """Return what the shards were made from and what they would be made from now.

        Return None if the shards are up to date, or if there are none.
        """
        folder, data = Path(self.folder), self.prepared.settings
        try:
            before: Origin = TokenShards.open(folder / "train").index["made_from"]
            now = origin_in(data, self.name, tokenizer)
        except UserError:  # no shards, or files that the run has not written yet
            return None
        if is_done(folder, now, data.sequence_length, data.shuffle_seed, longest):
            return None
        if self.written_by_run:
            now["files"] = before["files"]
        return before, now


def recipe_sources(prepared: PreparedData, folder: RunFolder) -> dict[str, RecipeSource]:
    """Return the sources of a recipe by name."""
    data = prepared.settings
    return {
        name: RecipeSource(
            name,
            source,
            prepared,
            written_by_run=data.sample is not None and Path(source.path).is_relative_to(folder.sample),
        )
        for name, source in data.sources.items()
    }


def check_first_records(sources: Iterable[RecipeSource], read_prepared: bool = True) -> None:
    """Raise UserError if a source has no file, or its first record cannot be used.

    Args:
        read_prepared: Whether to read prepared sources too. A dataset on the Hub may have become unreachable.
    """
    for source in sources:
        if source.prepared_elsewhere or source.written_by_run:
            continue
        if read_prepared or not is_packed(f"{source.folder}/train", source.prepared.settings.sequence_length):
            check_first_record(source.settings, source.on_error)


def check_shards(sources: Iterable[RecipeSource], tokenizer: Tokenizer, deep: bool) -> None:
    """Raise UserError if prepared data is damaged, or was made with another tokenizer.

    Sources that the recipe only reads must be prepared. With `deep`, all checksums are computed again.
    """
    for source in sources:
        cache, rows = source.prepared.cache, source.prepared.settings.sequence_length
        for split in SPLITS:
            folder = folder_at(f"{source.folder}/{split}", cache)
            if not folder.sizes() and not source.prepared_elsewhere:
                continue
            found: TokenShards | PackedSource = TokenShards.open(folder, tokenizer.fingerprint)
            if source.prepared_elsewhere or is_packed(folder, rows):
                found = PackedSource.open(folder, rows, tokenizer.fingerprint)
            if deep:
                found.verify()
                console.print(f"{folder}: every checksum is right", soft_wrap=True)

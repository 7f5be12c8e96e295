"""The prepared sources of a recipe: where they are, and how they are opened."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clm_detour.config.schema import Data
from clm_detour.config.units import parse_bytes
from clm_detour.data.cache import ShardCache, is_remote
from clm_detour.data.packing import PackedSource, is_packed
from clm_detour.data.shards import SPLITS, TokenShards
from clm_detour.utils.errors import UserError


@dataclass(frozen=True)
class PreparedData:
    """The folders to which the sources of a recipe are prepared.

    Args:
        settings: Section `data` of the recipe.
    """

    settings: Data

    def folder(self, name: str) -> str:
        """Return the path or URL of a prepared source: `data.prepared.<name>` or `<data.dir>/<name>`."""
        return self.settings.prepared.get(name) or f"{self.settings.dir.rstrip('/')}/{name}"

    def is_elsewhere(self, name: str) -> bool:
        """Return whether a source is only read here, and never prepared by this recipe."""
        return name in self.settings.prepared or is_remote(self.settings.dir)

    @cached_property
    def cache(self) -> ShardCache | None:
        """Cache for data at a URL."""
        limit = parse_bytes(self.settings.cache_limit, "data.cache_limit")
        return None if self.settings.cache_dir is None else ShardCache(Path(self.settings.cache_dir), limit)

    def has_rows(self, name: str) -> bool:
        """Return whether a source is packed into rows of the recipe's length."""
        return is_packed(f"{self.folder(name)}/train", self.settings.sequence_length, self.cache)

    def open(self, names: Iterable[str], split: str, fingerprint: str) -> dict[str, PackedSource]:
        """Open the packed rows of sources.

        Args:
            split: `train` or `held_out`.
            fingerprint: Fingerprint of the tokenizer.

        Raises:
            UserError: If a source is not prepared, is damaged, or was prepared with another tokenizer.
        """
        rows = self.settings.sequence_length
        return {
            name: PackedSource.open(f"{self.folder(name)}/{split}", rows, fingerprint, self.cache)
            for name in names
        }

    def count_documents(self, name: str) -> int | None:
        """Return the number of documents of a source, held-out ones included; None if a part is missing."""
        with suppress(UserError):
            splits = (TokenShards.open(f"{self.folder(name)}/{split}", cache=self.cache) for split in SPLITS)
            return sum(shards.documents for shards in splits)
        return None

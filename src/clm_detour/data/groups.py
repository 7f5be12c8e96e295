"""The parts of a source that are tokenised on their own, by any process, once: a large unit, or small ones that follow each other.

A group's key stands for all that its tokens depend on: its files with size and time of change, the tokenizer, the settings that choose
documents. Groups end at places that the files' names decide, so that a new file among many small ones changes the groups beside it only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_detour.data.shards import checksum
from clm_detour.data.sources.records import UNIT_BYTES, Unit

METHOD = 1  # another number is another way from a unit to its tokens
LARGE_BYTES = UNIT_BYTES // 8  # of a unit that is a group by itself
FILES_TOGETHER = 64  # small files in a group, on average
NOT_OF_A_GROUP = ("files", "on_error", "deduplicate")


@dataclass(frozen=True)
class Group:
    """Consecutive units.

    Args:
        folder: for its tokens, of this group alone; named by its key.
        digests: the file of its texts' digests.
        repeated: of its documents, one bit each, whether the source had the text before; None if that does not matter.
    """

    units: tuple[Unit, ...]
    folder: Path
    digests: Path
    repeated: bytes | None = None

    @property
    def key(self) -> str:
        """Of all that its tokens depend on."""
        return self.folder.name

    @property
    def size(self) -> int:
        """Bytes to read, as far as they are known."""
        return sum(unit.size for unit in self.units)

    def without(self, repeated: bytes) -> Group:
        """The group without the documents that were there before: another group, unless there are none."""
        if not any(repeated):
            return self
        key = checksum(self.key.encode() + repeated)
        return Group(self.units, self.folder.with_name(key), self.digests, repeated)


def make_groups(units: Sequence[Unit], made_from: Mapping[str, Any], folder: Path) -> list[Group]:
    """All units of a source, in their order.

    Args:
        made_from: settings, and the stamps of all `files`.
        folder: below which each group has its own.
    """
    stamps = {stamp["path"]: stamp for stamp in made_from["files"]}
    own = {unit.file for unit in units if unit.format != "hub"}
    common = {key: value for key, value in made_from.items() if key not in NOT_OF_A_GROUP}
    common |= {"method": METHOD, "others": [stamp for path, stamp in stamps.items() if path not in own]}

    def key(members: Sequence[Unit]) -> str:
        parts = [[stamps[unit.file], unit.start, unit.end, unit.format] for unit in members]
        return checksum(json.dumps([common, parts], sort_keys=True).encode())

    keys = {members: key(members) for members in together(units)}
    return [Group(members, folder / key, folder / f"{key}.digests") for members, key in keys.items()]


def together(units: Sequence[Unit]) -> list[tuple[Unit, ...]]:
    """Small units in groups, each large one alone."""
    found: list[tuple[Unit, ...]] = []
    small: list[Unit] = []
    for unit in units:
        alone = unit.format == "hub" or unit.size >= LARGE_BYTES
        if alone and small:
            found.append(tuple(small))
            small = []
        small.append(unit)
        if alone or ends_a_group(unit.file) or sum(member.size for member in small) >= UNIT_BYTES:
            found.append(tuple(small))
            small = []
    return [*found, tuple(small)] if small else found


def ends_a_group(file: str) -> bool:
    """Decided by the name alone."""
    return hashlib.blake2b(file.encode(), digest_size=1).digest()[0] % FILES_TOGETHER == 0

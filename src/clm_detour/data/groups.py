"""The groups of a source: one large unit or consecutive small ones, tokenized once by any process.

A group's key is a hash of everything its tokens depend on: its files with size and modification time, the
tokenizer, and the settings that choose documents. The names of the files decide where groups end, so that a
new file among many small ones changes only the groups next to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clm_detour.data.shards import checksum
from clm_detour.data.sources.records import UNIT_BYTES, Unit

METHOD = 1  # increase it when the way from a unit to its tokens changes
LARGE_BYTES = UNIT_BYTES // 8  # a unit of this size is a group
SMALL_FILES = 64  # in a group, on average
NOT_OF_A_GROUP = ("files", "on_error", "deduplicate", "across")
PLACE = np.dtype("<u4")  # of the numbers of documents and paragraphs


@dataclass(frozen=True)
class Group:
    """Consecutive units of a source.

    Args:
        folder: Folder for the tokens of this group, named by its key.
        digests: File of the digests of its texts.
        repeated: One bit for each of its documents: whether its text occurred earlier. Empty if none did.
        near: The same for near copies of an earlier text.
        cut: Pairs of PLACE, the document and the paragraph of each near copy of an earlier paragraph.
    """

    units: tuple[Unit, ...]
    folder: Path
    digests: Path
    repeated: bytes = b""
    near: bytes = b""
    cut: bytes = b""

    @property
    def key(self) -> str:
        """Hash of everything that its tokens depend on."""
        return self.folder.name

    @property
    def size(self) -> int:
        """Number of bytes to read, as far as it is known."""
        return sum(unit.size for unit in self.units)

    def without(self, repeated: np.ndarray, near: np.ndarray, cut: np.ndarray) -> Group:
        """Return the group without copies of earlier texts.

        Args:
            repeated: Whether each document is equal to an earlier one.
            near: Whether each document is a near copy of an earlier one.
            cut: Document and paragraph of each near copy of an earlier paragraph, as an array (copies, 2).
        """
        if not repeated.any() and not near.any() and not len(cut):
            return self
        equal, copies = np.packbits(repeated).tobytes(), np.packbits(near).tobytes() if near.any() else b""
        pairs = cut.astype(PLACE).tobytes()
        further = (b"near" + copies if copies else b"") + (b"cut" + pairs if pairs else b"")
        folder = self.folder.with_name(checksum(self.key.encode() + equal + further))
        return Group(self.units, folder, self.digests, equal, copies, pairs)


def largest_first(groups: Iterable[Group]) -> list[Group]:
    """Return groups in the order in which the last process ends earliest."""
    return sorted(groups, key=lambda group: -group.size)


def make_groups(units: Sequence[Unit], made_from: Mapping[str, Any], folder: Path) -> list[Group]:
    """Return all units of a source in groups, in their order.

    Args:
        made_from: Settings of the source, and the stamps of all `files`.
        folder: Folder in which each group has its own.
    """
    stamps = {stamp["path"]: stamp for stamp in made_from["files"]}
    own = {unit.file for unit in units if unit.format != "hub"}
    common = {key: value for key, value in made_from.items() if key not in NOT_OF_A_GROUP}
    common |= {"method": METHOD, "others": [stamp for path, stamp in stamps.items() if path not in own]}

    def key(members: Sequence[Unit]) -> str:
        parts = [[stamps.get(unit.file), unit.start, unit.end, unit.format] for unit in members]
        return checksum(json.dumps([common, parts], sort_keys=True).encode())

    keys = {members: key(members) for members in divide(units)}
    return [Group(members, folder / key, folder / f"{key}.digests") for members, key in keys.items()]


def divide(units: Sequence[Unit]) -> list[tuple[Unit, ...]]:
    """Return small units in groups, and each large unit as a group."""
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
    """Return whether a group ends after this file, which its name alone decides."""
    return hashlib.blake2b(file.encode(), digest_size=1).digest()[0] % SMALL_FILES == 0

"""Joining the shards of groups into those of the source, which are large even if groups are small.

The tokens of a group are deleted once they are joined. The entry of a joined shard lists its parts: when the
source changes, groups that are still needed are cut out of it again instead of being tokenized again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clm_detour.data.groups import Group
from clm_detour.data.shards import (
    REMEDY,
    SPLITS,
    Entry,
    checksum,
    lengths_name,
    raw,
    record_name,
    remove_shards,
    tokens_name,
    whole_shards,
    write_shard,
)
from clm_detour.data.tokenization import RECORD
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json, writable
from clm_detour.utils.parallel import Worker, parallel_map

DIMENSIONS = ("documents", "tokens", "bytes", "checksum")


class Joint(NamedTuple):
    """A shard to be written.

    Args:
        folder: Folder of the split.
        parts: Entries of the shards of groups, with `group` and `number`.
    """

    folder: Path
    number: int
    groups: Path
    dtype: str
    parts: list[Entry]


def finished_record(group: Group, joined: set[tuple[str, str, int]], on_error: str) -> Any:
    """Return the record of a group if all its tokens exist, in its folder or joined, otherwise None.

    Args:
        joined: Parts of the source's shards, as `joined_parts` returns them.
    """
    if not (group.folder / RECORD).is_file():
        return None
    record = read_json(group.folder / RECORD)
    if record["on_error"] not in (on_error, "stop"):  # records that were skipped must be counted or be errors
        return None
    for split in SPLITS:
        own = whole_shards(group.folder / split)
        for number in range(len(record["splits"][split])):
            if number not in own and (group.key, split, number) not in joined:
                return None
    return record


def joined_parts(folder: Path) -> set[tuple[str, str, int]]:
    """Return group, split and number of each part of a source's shards."""
    return {
        (part["group"], split, part["number"])
        for split in SPLITS
        for shard in whole_shards(folder / split).values()
        for part in shard.get("parts", ())
    }


def join_groups(
    folder: Path,
    split: str,
    dtype: str,
    records: dict[str, Any],
    shard_tokens: int,
    processes: int,
    on_progress: Callable[..., None],
) -> list[Entry]:
    """Write the shards of a split, of `shard_tokens` tokens or more. Those that are up to date are kept.

    Args:
        records: Records of all groups in their order, by key.

    Returns:
        The entries of the shards.
    """
    wanted = shards_of(split, records, shard_tokens)
    there = whole_shards(folder / split)
    right = {
        number
        for number, entry in there.items()
        if number < len(wanted) and entry.get("parts") == wanted[number]
    }
    for number in there.keys() - right:
        cut_out(folder, split, number, there[number], records)
    with writable(folder):
        (folder / split).mkdir(parents=True, exist_ok=True)
    remove_shards(folder / split, keep=right)
    joints = [
        Joint(folder / split, number, folder / "parts", dtype, parts)
        for number, parts in enumerate(wanted)
        if number not in right
    ]
    made = parallel_map(join, joints, processes=processes, on_progress=on_progress, remedy=REMEDY)
    entries = there | {joint.number: entry for joint, entry in zip(joints, made, strict=True)}
    return [entries[number] for number in range(len(wanted))]


def shards_of(split: str, records: dict[str, Any], shard_tokens: int) -> list[list[Entry]]:
    """Return the parts of each shard of a split."""
    shards: list[list[Entry]] = []
    tokens = shard_tokens
    for key, record in records.items():
        for number, entry in enumerate(record["splits"][split]):
            if tokens >= shard_tokens:
                shards.append([])
                tokens = 0
            dimensions = {name: entry[name] for name in DIMENSIONS}
            shards[-1].append({"group": key, "number": number, **dimensions})
            tokens += entry["tokens"]
    return shards


def join(_: object, joint: Joint, worker: Worker) -> Entry:
    """Write one shard, delete its parts, and return its entry. A task that is done again only deletes."""
    record = joint.folder / record_name(joint.number)
    entry = read_json(record) if record.is_file() else {}
    if entry.get("parts") != joint.parts:
        entry = write_joined(joint)
    with writable(joint.groups):
        for part in joint.parts:
            for name in (record_name, tokens_name, lengths_name):
                (home_of(joint, part) / name(part["number"])).unlink(missing_ok=True)
    worker.report(sum(part["tokens"] for part in joint.parts))
    return entry


def write_joined(joint: Joint) -> Entry:
    """Write one shard. Return its entry."""
    lengths = [np.load(home_of(joint, part) / lengths_name(part["number"])) for part in joint.parts]

    def tokens() -> Iterator[np.ndarray]:
        for part in joint.parts:
            file = home_of(joint, part) / tokens_name(part["number"])
            ids = np.fromfile(file, dtype=joint.dtype)
            check_part(ids, part, file)
            yield ids

    return write_shard(joint.folder, joint.number, tokens(), np.concatenate(lengths), {"parts": joint.parts})


def home_of(joint: Joint, part: Entry) -> Path:
    """Return the folder of a part."""
    return joint.groups / part["group"] / joint.folder.name


def cut_out(folder: Path, split: str, shard: int, entry: Entry, records: dict[str, Any]) -> None:
    """Write the parts of a shard that are still needed back into the folders of their groups."""
    parts: Sequence[Entry] = entry.get("parts", ())
    if not any(part["group"] in records for part in parts):
        return
    tokens = np.memmap(folder / split / tokens_name(shard), np.uint8, mode="r")
    lengths = np.load(folder / split / lengths_name(shard))
    byte_ends = accumulate(part["bytes"] for part in parts)
    document_ends = accumulate(part["documents"] for part in parts)
    for part, byte_end, document_end in zip(parts, byte_ends, document_ends, strict=True):
        if part["group"] not in records:
            continue
        content = tokens[byte_end - part["bytes"] : byte_end]
        check_part(content, part, folder / split / tokens_name(shard))
        home = folder / "parts" / part["group"] / split
        write_shard(home, part["number"], [content], lengths[document_end - part["documents"] : document_end])


def check_part(tokens: np.ndarray, part: Entry, file: Path) -> None:
    """Check that these are the tokens of a part.

    Raises:
        UserError: If the checksum differs.
    """
    if checksum(raw(tokens)) != part["checksum"]:
        raise UserError(
            f"{file} is damaged (its checksum does not match): delete the source's folder and run "
            "`clm-detour prepare` again."
        )

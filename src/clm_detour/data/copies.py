"""Leaving out copies of earlier texts, in one source or in several sources in their order.

    <source>/parts/copies.npz       which documents and paragraphs are left out, and what this was decided for
    <source>/near_duplicates.jsonl  a line for each near copy: its place, and that of the earlier text

Digests and fingerprints are written group by group in parallel (`fingerprints.py`). Then one process goes
through them in the order of the texts, so the result is the same for any number of processes. Equal
documents are left out first. Among the others, near copies are searched for (`near_duplicates.py`). A
decision depends on earlier texts only.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clm_detour.config.schema import NearDuplicates
from clm_detour.data.deduplicate import Seen
from clm_detour.data.fingerprints import Fingerprints, Wanted, file_of, write_fingerprints
from clm_detour.data.groups import Group, largest_first
from clm_detour.data.near_duplicates import NearCopies, find_near_copies
from clm_detour.data.shards import REMEDY, checksum
from clm_detour.data.shingles import BANDS
from clm_detour.data.tokenization import Settings, write_digests
from clm_detour.utils.files import atomic_write
from clm_detour.utils.parallel import parallel_map
from clm_detour.utils.progress import progress

COPIES = "copies.npz"
LISTING = "near_duplicates.jsonl"
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Searched:
    """A source in which copies are searched for.

    Args:
        folder: Folder of the prepared source.
        made_from: All that the decision depends on, as in the index of the shards.
        processes: Number of processes that read the source.
    """

    name: str
    folder: Path
    settings: Settings
    made_from: dict[str, Any]
    groups: list[Group]
    processes: int

    @property
    def copies(self) -> Path:
        """File of what is left out."""
        return self.folder / "parts" / COPIES

    @property
    def listing(self) -> Path:
        """File of the near copies."""
        return self.folder / LISTING

    @property
    def key(self) -> str:
        """Hash of all that the decision depends on."""
        return checksum(json.dumps(self.made_from, sort_keys=True).encode())


class LeftOut(NamedTuple):
    """The documents and paragraphs that are left out.

    Args:
        equal: Whether each document is equal to an earlier one.
        near: Whether each document is a near copy of an earlier one.
        cut: Document and paragraph of each near copy of an earlier paragraph, as an array (copies, 2).
    """

    equal: np.ndarray
    near: np.ndarray
    cut: np.ndarray

    def part(self, start: int, end: int) -> LeftOut:
        """Return what is left out of the documents from `start` to `end`."""
        inside = slice(*np.searchsorted(self.cut[:, 0], [start, end]))
        return LeftOut(self.equal[start:end], self.near[start:end], self.cut[inside] - [start, 0])


def without_copies(source: Searched) -> list[Group] | None:
    """Return the groups of a source without copies, or None if these have not been searched for."""
    try:
        with np.load(source.copies) as found:
            if str(found["key"]) != source.key:
                return None
            left_out = LeftOut(found["equal"], found["near"], found["cut"])
            bounds = pairwise(np.cumsum([0, *found["documents"]]).tolist())
    except FileNotFoundError:
        return None
    return [group.without(*left_out.part(*bound)) for group, bound in zip(source.groups, bounds, strict=True)]


def search_copies(sources: Sequence[Searched], rule: bool | NearDuplicates) -> None:
    """Find texts that occurred earlier in these sources, and write what is left out of each source.

    Args:
        sources: Sources in their order.
        rule: `deduplicate` of the recipe.
    """
    for source in sources:
        write_missing(source, rule)
    groups = [group for source in sources for group in source.groups]
    counts = [group.digests.stat().st_size // DIGEST_BYTES for group in groups]
    equal = equal_documents(groups)
    if isinstance(rule, NearDuplicates):
        fingerprints = Fingerprints([Wanted(group, rule.by) for group in groups], counts)
        with progress("Comparing texts", BANDS, "bands") as advance:
            found = find_near_copies(fingerprints, rule.near, ~equal[fingerprints.documents], advance)
        write_listings(sources, fingerprints, found, rule.by)
        write_left_out(sources, counts, near_left_out(equal, fingerprints, found, rule.by))
        fingerprints.delete()
    else:
        for source in sources:
            source.listing.unlink(missing_ok=True)
        write_left_out(sources, counts, LeftOut(equal, np.zeros_like(equal), np.empty((0, 2), np.int64)))


def write_missing(source: Searched, rule: bool | NearDuplicates) -> None:
    """Write the digests of a source's groups, or their fingerprints, if they do not exist."""
    groups = largest_first(source.groups)
    function: Any
    tasks: Sequence[Any]
    if isinstance(rule, NearDuplicates):
        wanted = [
            Wanted(group, rule.by) for group in groups if not file_of(group, rule.by, "texts").is_file()
        ]
        missing, tasks, function = [one.group for one in wanted], wanted, write_fingerprints
    else:
        missing = tasks = [group for group in groups if not group.digests.is_file()]
        function = write_digests
    if not missing:
        return
    size = sum(group.size for group in missing)
    with progress(f"Searching for copies in {source.name}", size or None, "B") as advance:
        parallel_map(
            function,
            tasks,
            source.settings,
            processes=source.processes,
            on_progress=lambda read, *_: advance(read),
            remedy=REMEDY,
        )


def equal_documents(groups: Sequence[Group]) -> np.ndarray:
    """Return for each document of some groups whether it is equal to an earlier one.

    This takes 24 to 48 bytes of memory for each document.
    """
    seen, found = Seen(), bytearray()
    for group in groups:
        digests = memoryview(group.digests.read_bytes())
        for start in range(0, len(digests), DIGEST_BYTES):
            found.append(not seen.add(bytes(digests[start : start + DIGEST_BYTES])))
    return np.array(found, dtype=np.uint8).astype(bool)


def near_left_out(equal: np.ndarray, fingerprints: Fingerprints, found: NearCopies, by: str) -> LeftOut:
    """Return what is left out if near copies are."""
    near = np.zeros_like(equal)
    copies = np.flatnonzero(found.original >= 0)
    documents, paragraphs = fingerprints.documents[copies], fingerprints.texts["paragraph"][copies]
    if by == "paragraph":
        return LeftOut(equal, near, np.stack([documents, paragraphs], axis=1).astype(np.int64))
    near[documents] = True
    return LeftOut(equal, near, np.empty((0, 2), np.int64))


def write_left_out(sources: Sequence[Searched], counts: Sequence[int], left_out: LeftOut) -> None:
    """Write what is left out of each source.

    Args:
        counts: Number of documents in each group of all sources.
    """
    remaining, start = iter(counts), 0
    for source in sources:
        documents = list(islice(remaining, len(source.groups)))
        end = start + sum(documents)
        with atomic_write(source.copies) as file:
            arrays = left_out.part(start, end)._asdict()
            np.savez_compressed(file, key=np.array(source.key), documents=np.array(documents, int), **arrays)
        start = end


class UnitPlace(NamedTuple):
    """A unit among all documents: the first of them in it, and how many of its file come before it."""

    start: int
    source: str
    file: str
    before: int


def write_listings(
    sources: Sequence[Searched], fingerprints: Fingerprints, found: NearCopies, by: str
) -> None:
    """Write the near copies of each source: the places of both texts, from 1, and their Jaccard index."""
    units = places_of_units(sources, fingerprints.documents_of_units)
    starts = [unit.start for unit in units]
    paragraphs = fingerprints.texts["paragraph"]

    def place(text: int) -> dict[str, Any]:
        document = int(fingerprints.documents[text])
        unit = units[bisect_right(starts, document) - 1]
        number = unit.before + document - unit.start + 1
        paragraph = {"paragraph": int(paragraphs[text]) + 1} if by == "paragraph" else {}
        return {"source": unit.source, "file": unit.file, "document": number, **paragraph}

    copies = np.flatnonzero(found.original >= 0)
    documents = fingerprints.documents[copies]
    firsts = [next(unit.start for unit in units if unit.source == source.name) for source in sources]
    bounds = pairwise([*firsts, sum(fingerprints.documents_of_units)])
    for source, (start, end) in zip(sources, bounds, strict=True):
        with atomic_write(source.listing, "w") as file:
            for copy in copies[slice(*np.searchsorted(documents, [start, end]))].tolist():
                likeness = round(float(found.jaccard[copy]), 6)
                line = {**place(copy), "near": place(int(found.original[copy])), "jaccard": likeness}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def places_of_units(sources: Sequence[Searched], documents: Sequence[int]) -> list[UnitPlace]:
    """Return the places of all units, given the number of documents in each."""
    counts, start = iter(documents), 0
    places = []
    for source in sources:
        before: Counter[str] = Counter()
        for unit in (unit for group in source.groups for unit in group.units):
            count = next(counts)
            places.append(UnitPlace(start, source.name, unit.file, before[unit.file]))
            before[unit.file] += count
            start += count
    return places

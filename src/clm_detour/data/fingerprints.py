"""Fingerprints of the texts of a source, by which copies are found. They are written group by group.

    <source>/parts/KEY.digests            16 bytes for each document; kept, since equal texts need no more
    <source>/parts/KEY.BY.shingles        the shingles of each compared text, 8 bytes each
    <source>/parts/KEY.BY.bands           BANDS keys of 8 bytes for each compared text
    <source>/parts/KEY.BY.units           the number of documents in each unit
    <source>/parts/KEY.BY.texts           a record for each compared text; written last

What is compared is a whole document or a long paragraph (`BY`). The shingles take about as much space as the
text itself, so all but the digests are deleted once the search has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from clm_detour.data.decontaminate import mix
from clm_detour.data.deduplicate import digest
from clm_detour.data.groups import Group
from clm_detour.data.shingles import BANDS, band_keys, compared_texts, shingle_sets
from clm_detour.data.sources.records import Unit
from clm_detour.data.tokenization import Settings, every_document
from clm_detour.utils.files import atomic_write
from clm_detour.utils.parallel import Worker

# Place of a compared text in its group, number of its shingles, and a hash that equal sets share.
TEXT = np.dtype([("document", "<u4"), ("paragraph", "<u4"), ("shingles", "<u4"), ("whole", "<u8")])
BATCH_CHARACTERS = 2**18
BLOCK = 2**12  # texts whose keys of one band are side by side, so that a band can be read alone
OPEN_FILES = 128
KINDS = ("texts", "units", "bands", "shingles")


class Wanted(NamedTuple):
    """A group of which fingerprints are wanted."""

    group: Group
    by: str


class Found(NamedTuple):
    """A compared text, with its place."""

    document: int
    paragraph: int
    text: str


def file_of(group: Group, by: str, kind: str) -> Path:
    """Return one of the files of a group's compared texts."""
    return group.digests.with_name(f"{group.digests.stem}.{by}.{kind}")


def write_fingerprints(settings: Settings, wanted: Wanted, worker: Worker) -> None:
    """Write the fingerprints of all documents of a group, in one reading."""
    group, by = wanted
    with (
        atomic_write(file_of(group, by, "texts")) as texts,
        atomic_write(file_of(group, by, "shingles")) as shingles,
        atomic_write(file_of(group, by, "bands")) as bands,
        atomic_write(file_of(group, by, "units")) as units,
        atomic_write(group.digests) as digests,
    ):
        rows: np.ndarray = np.empty((0, BANDS), np.uint64)
        documents = dict.fromkeys(group.units, 0)
        for batch in batches(compared(settings, wanted, documents, digests, worker)):
            hashes, sizes = shingle_sets([found.text for found in batch])
            some = np.flatnonzero(sizes)
            texts.write(records(batch, hashes, sizes)[some].tobytes())
            shingles.write(hashes.tobytes())
            rows = np.concatenate([rows, band_keys(hashes, sizes[some])])
            while len(rows) >= BLOCK:
                bands.write(rows[:BLOCK].T.tobytes())
                rows = rows[BLOCK:]
        bands.write(rows.T.tobytes())
        units.write(np.array([*documents.values()], np.uint64).tobytes())


def compared(
    settings: Settings, wanted: Wanted, documents: dict[Unit, int], digests: IO[bytes], worker: Worker
) -> Iterator[Found]:
    """Yield what is compared of each document. Write its digest, and count the documents of each unit."""
    for place, (unit, number, document) in enumerate(
        every_document(settings, wanted.group, Counter(), worker)
    ):
        documents[unit] = number
        digests.write(digest(document.text))
        for paragraph, text in compared_texts(document.text, wanted.by):
            yield Found(place, paragraph, text)


def batches(found: Iterator[Found]) -> Iterator[list[Found]]:
    """Yield lists of texts of at most BATCH_CHARACTERS; a longer text is alone."""
    batch: list[Found] = []
    characters = 0
    for one in found:
        if batch and characters + len(one.text) > BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
        batch.append(one)
        characters += len(one.text)
    if batch:
        yield batch


def records(batch: Sequence[Found], hashes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the records (TEXT) of the texts of a batch."""
    found = np.zeros(len(batch), TEXT)
    found["document"] = [one.document for one in batch]
    found["paragraph"] = [one.paragraph for one in batch]
    found["shingles"] = sizes
    sums = np.concatenate([[np.uint64(0)], np.cumsum(mix(hashes))])
    ends = np.cumsum(sizes)
    found["whole"] = sums[ends] - sums[ends - sizes]
    return found


class Fingerprints:
    """The fingerprints of the compared texts of many groups, in their order.

    In memory are 36 bytes for each text; keys and shingles are read when they are needed.

    Args:
        wanted: Groups in their order.
        counts: Number of documents in each group.

    Attributes:
        texts: Records (TEXT) of all texts.
        documents: Number of each text's document among all documents.
        documents_of_units: Number of documents in each unit.
    """

    def __init__(self, wanted: Sequence[Wanted], counts: Sequence[int]):
        self.wanted = wanted
        each = [np.fromfile(file_of(*one, "texts"), TEXT) for one in wanted]
        self._starts = np.cumsum([0, *map(len, each)]).tolist()  # the first text of each group
        self.texts = np.concatenate([np.empty(0, TEXT), *each])
        firsts = np.cumsum(counts) - counts
        self.documents = np.repeat(firsts, np.diff(self._starts)) + self.texts["document"]
        self.documents_of_units: list[int] = []
        for one in wanted:
            self.documents_of_units += np.fromfile(file_of(*one, "units"), np.uint64).tolist()
        self._ends = np.cumsum(self.texts["shingles"], dtype=np.int64)
        self._open = lru_cache(OPEN_FILES)(self._map)

    def band(self, number: int) -> np.ndarray:
        """Return the key of each text in one band."""
        keys = np.empty(len(self.texts), np.uint64)
        for one, (first, end) in zip(self.wanted, pairwise(self._starts), strict=True):
            with open(file_of(*one, "bands"), "rb") as file:
                for start in range(0, end - first, BLOCK):
                    count = min(BLOCK, end - first - start)
                    file.seek(8 * (start * BANDS + number * count))
                    keys[first + start : first + start + count] = np.fromfile(file, np.uint64, count)
        return keys

    def sets(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sets of shingles of texts, as `shingle_sets` does."""
        sizes = self.texts["shingles"][texts].astype(np.int64)
        found = np.empty(sizes.sum(), np.uint64)
        firsts = np.cumsum(sizes) - sizes
        groups = np.searchsorted(self._starts, texts, side="right") - 1
        for group in np.unique(groups).tolist():
            some = np.flatnonzero(groups == group)
            first = self._starts[group]
            before = self._ends[first - 1] if first else 0
            starts = self._ends[texts[some]] - before - sizes[some]
            found[spread(firsts[some], sizes[some])] = self._open(group)[spread(starts, sizes[some])]
        return found, sizes

    def _map(self, group: int) -> np.ndarray:
        return np.asarray(np.memmap(file_of(*self.wanted[group], "shingles"), np.uint64, mode="r"))

    def delete(self) -> None:
        """Delete all files but the digests."""
        self._open.cache_clear()
        for one in self.wanted:
            for kind in KINDS:
                file_of(*one, kind).unlink(missing_ok=True)


def spread(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the places start, start + 1, ... of each of several ranges."""
    return np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())

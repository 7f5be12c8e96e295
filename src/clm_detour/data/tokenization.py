"""Tokenizing one group of a source in one process: read it, encode it, write shards and a record.

    <source>/parts/KEY/train/, held_out/  shards of up to PART_TOKENS, until they are joined to the source's
    <source>/parts/KEY/group.json         written last: entries of these shards, what was left out and why,
                                          texts and characters
    <source>/parts/KEY.digests            16 bytes for each document, if copies are searched for

A group whose process was killed is resumed after its last shard. The tokenizers library spreads a batch over
its own threads and releases Python's lock, so with several threads the next batches are encoded while this
one is written. Memory is bounded by `AHEAD + 1` batches, at about a hundred bytes for each character.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from clm_detour.config.schema import Canaries, Source
from clm_detour.data.canaries import UNIT, canary_documents
from clm_detour.data.deduplicate import digest
from clm_detour.data.groups import PLACE, Group
from clm_detour.data.shards import SPLITS, ShardWriter
from clm_detour.data.shingles import without_paragraphs
from clm_detour.data.sources.read import OnError, documents
from clm_detour.data.sources.records import Unit
from clm_detour.data.sources.selection import Document, Selection, is_held_out
from clm_detour.data.tokenizer import LONG_CHARACTERS, Tokenizer
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write, write_json
from clm_detour.utils.parallel import Worker

PART_TOKENS = 2**24  # a process that is killed has to repeat at most these; they are held in memory
RECORD = "group.json"
BATCH_CHARACTERS = 2**18  # for each thread
MOST_CHARACTERS = 2**21
AHEAD = 2  # the second batch keeps the cores busy while the last document of the first is encoded
T = TypeVar("T", bound="HasText")


@dataclass(frozen=True)
class Settings:
    """The settings that all groups of a source share."""

    source: Source
    tokenizer: Tokenizer
    held_out: float
    on_error: OnError
    part_tokens: int
    canaries: Canaries | None = None  # of this source

    @cached_property
    def selection(self) -> Selection:
        """The conditions of the source, parsed in each process since functions cannot be sent."""
        return Selection.of(self.source)


class Wanted(NamedTuple):
    """A document that is yet to be written, and how often."""

    text: str
    split: str
    copies: int


def write_digests(settings: Settings, group: Group, worker: Worker) -> None:
    """Write the digest of every document of a group."""
    with atomic_write(group.digests) as file:
        for _, _, document in every_document(settings, group, Counter(), worker):
            file.write(digest(document.text))


def write_tokens(settings: Settings, group: Group, worker: Worker) -> dict[str, Any]:
    """Tokenize a group. Return its record. Report bytes read, documents and tokens.

    Raises:
        UserError: If a file cannot be read, or a record is bad.
    """
    left_out: Counter[str] = Counter()
    texts, words, characters = (dict.fromkeys(SPLITS, 0) for _ in range(3))
    vocabulary = settings.tokenizer.vocab_size
    writers = {split: ShardWriter(group.folder / split, vocabulary, settings.part_tokens) for split in SPLITS}
    there = {split: writer.documents for split, writer in writers.items()}

    def threads() -> int:
        count = worker.threads()
        if worker.processes > 1:
            os.environ["TOKENIZERS_PARALLELISM"] = "true" if count > 1 else "false"
        return count

    def wanted() -> Iterator[Wanted]:
        for (text, copies), split in documents_of(settings, group, left_out, worker):
            copies = copies if split == "train" else 1
            texts[split] += 1
            words[split] += copies * len(text.split())
            characters[split] += copies * len(text)
            done = min(there[split], copies)
            there[split] -= done
            if copies > done:
                yield Wanted(text, split, copies - done)

    for batch in tokenize(wanted(), settings.tokenizer, threads):
        count = tokens = 0
        for (_, split, copies), ids in batch:
            for _ in range(copies):
                writers[split].add(ids)
            count, tokens = count + copies, tokens + copies * len(ids)
        worker.report(0, count, tokens)
    record = {
        "splits": {split: writer.finish() for split, writer in writers.items()},
        "dropped": dict(left_out),
        "texts": texts,
        "words": words,
        "characters": characters,
        "on_error": settings.on_error,
    }
    write_json(group.folder / RECORD, record)
    return record


def documents_of(
    settings: Settings, group: Group, left_out: Counter[str], worker: Worker
) -> Iterator[tuple[Document, str]]:
    """Yield the documents of a group with their splits, without copies of earlier texts.

    The whole text decides the split, also if paragraphs are cut out of it.
    """
    equal, near = (np.unpackbits(np.frombuffer(bits, np.uint8)) for bits in (group.repeated, group.near))
    cut: dict[int, set[int]] = {}
    for place, paragraph in np.frombuffer(group.cut, PLACE).reshape(-1, 2).tolist():
        cut.setdefault(place, set()).add(paragraph)
    for place, (unit, number, document) in enumerate(every_document(settings, group, left_out, worker)):
        split = "held_out" if is_held_out(document.text, settings.held_out) else "train"
        nothing_left = False
        if place in cut:
            document = document._replace(text=without_paragraphs(document.text, cut[place]))
            nothing_left = not document.text.strip()
        if len(equal) and equal[place]:
            left_out["duplicate"] += 1
        elif nothing_left or (len(near) and near[place]):
            left_out["near duplicate"] += 1
        elif len(document.text) <= LONG_CHARACTERS or settings.tokenizer.cuts(document.text) is not None:
            yield document, split
        elif settings.on_error == "stop":
            raise UserError(
                f"{unit.file}: document {number} of those kept has {len(document.text):,} characters and "
                "cannot be tokenized in pieces, since it has too few blanks; divide it, or leave such "
                "documents out with max_characters or on_error: skip."
            )
        else:
            left_out["too long to tokenise"] += 1
    if cut:
        left_out["near duplicate paragraphs"] += sum(map(len, cut.values()))


def every_document(
    settings: Settings, group: Group, left_out: Counter[str], worker: Worker
) -> Iterator[tuple[Unit, int, Document]]:
    """Yield all documents that the source's settings select, in order, each with its unit and number there.

    The digests of a group are in the same order.
    """
    for unit in group.units:
        if unit == UNIT:
            assert settings.canaries is not None
            found = canary_documents(settings.canaries, settings.held_out)
        else:
            found = documents(
                unit, settings.selection, settings.on_error, left_out, lambda read: worker.report(read, 0, 0)
            )
        for number, document in enumerate(found, start=1):
            yield unit, number, document


class HasText(Protocol):
    """Anything that has a text."""

    @property
    def text(self) -> str:
        """The text to tokenize."""


def tokenize(
    documents: Iterable[T], tokenizer: Tokenizer, threads: Callable[[], int]
) -> Iterator[list[tuple[T, np.ndarray]]]:
    """Yield batches of documents, in order, each document with its ids `[CLS] ... [SEP]` (uint32).

    Args:
        threads: Function that returns the number of threads to use now, called before each batch.
    """
    waiting: deque[tuple[list[T], Future[list[np.ndarray]]]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        for batch in batches(documents, threads):
            texts = [document.text for document in batch]
            waiting.append((batch, pool.submit(tokenizer.encode_batch, texts)))
            while len(waiting) > (AHEAD if threads() > 1 else 0):
                yield pairs(*waiting.popleft())
        while waiting:
            yield pairs(*waiting.popleft())


def pairs(batch: list[T], encoded: Future[list[np.ndarray]]) -> list[tuple[T, np.ndarray]]:
    """Return the documents of a batch with their ids."""
    return list(zip(batch, encoded.result(), strict=True))


def batches(documents: Iterable[T], threads: Callable[[], int]) -> Iterator[list[T]]:
    """Yield lists of documents, which are larger for more threads."""
    batch: list[T] = []
    characters, enough = 0, 0
    for document in documents:
        if not batch:
            enough = min(BATCH_CHARACTERS * threads(), MOST_CHARACTERS)
        batch.append(document)
        characters += len(document.text)
        if characters >= enough:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch

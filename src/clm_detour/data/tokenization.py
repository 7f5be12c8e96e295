"""What a process does with one group: read it, tokenise it, and leave shards and a record, or go on where a killed process stopped.

<source>/parts/KEY/train/, held_out/    shards of up to PART_TOKENS, until they are joined to the source's
                   group.json           written last: entries of these shards, what was left out and why, texts and characters
<source>/parts/KEY.digests              16 bytes a document, if copies are looked for
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from clm_detour.config.schema import Source
from clm_detour.data.deduplicate import digest
from clm_detour.data.groups import Group
from clm_detour.data.shards import SPLITS, ShardWriter
from clm_detour.data.sources.read import OnError, documents
from clm_detour.data.sources.selection import Document, Selection
from clm_detour.data.tokenizer import LONG_CHARACTERS, Tokenizer
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write, write_json
from clm_detour.utils.parallel import Worker

PART_TOKENS = 2**24  # what a killed process has to do again, at most, and holds in memory
RECORD = "group.json"
BATCH_CHARACTERS = 2**18  # for each thread
MOST_CHARACTERS = 2**21
AHEAD = 2  # two batches at once keep the cores busy while the last document of the first is finished
T = TypeVar("T", bound="HasText")


@dataclass(frozen=True)
class Settings:
    """What all groups of a source have in common."""

    source: Source
    tokenizer: Tokenizer
    held_out: float
    on_error: OnError
    part_tokens: int

    @cached_property
    def selection(self) -> Selection:
        """Made in each process: conditions are functions, which cannot be sent."""
        return Selection.of(self.source)


class Wanted(NamedTuple):
    """A document that is yet to be written, and how often."""

    text: str
    split: str
    copies: int


def write_digests(settings: Settings, group: Group, worker: Worker) -> None:
    """The digest of every document of a group."""
    with atomic_write(group.digests) as file:
        for _, document in every_document(settings, group, Counter(), worker):
            file.write(digest(document.text))


def write_tokens(settings: Settings, group: Group, worker: Worker) -> dict[str, Any]:
    """Tokenise a group; returns its record. Reports bytes read, documents and tokens.

    Raises:
        UserError: a file cannot be read, or a record is bad.
    """
    left_out: Counter[str] = Counter()
    texts, characters = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
    vocabulary = settings.tokenizer.vocab_size
    writers = {split: ShardWriter(group.folder / split, vocabulary, settings.part_tokens) for split in SPLITS}
    there = {split: writer.documents for split, writer in writers.items()}

    def threads() -> int:
        count = worker.threads()
        if worker.processes > 1:
            os.environ["TOKENIZERS_PARALLELISM"] = "true" if count > 1 else "false"
        return count

    def wanted() -> Iterator[Wanted]:
        for text, copies in documents_of(settings, group, left_out, worker):
            split = "held_out" if is_held_out(text, settings.held_out) else "train"
            copies = copies if split == "train" else 1
            texts[split] += 1
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
        "characters": characters,
        "on_error": settings.on_error,
    }
    write_json(group.folder / RECORD, record)
    return record


def documents_of(
    settings: Settings, group: Group, left_out: Counter[str], worker: Worker
) -> Iterator[Document]:
    """The documents of a group, but for those that were in the source before."""
    repeated = None if group.repeated is None else np.unpackbits(np.frombuffer(group.repeated, np.uint8))
    for number, (place, document) in enumerate(every_document(settings, group, left_out, worker)):
        if repeated is not None and repeated[number]:
            left_out["duplicate"] += 1
        elif len(document.text) <= LONG_CHARACTERS or settings.tokenizer.cuts(document.text) is not None:
            yield document
        elif settings.on_error == "stop":
            raise UserError(
                f"{place} of those kept has {len(document.text):,} characters and cannot be tokenised in "
                "pieces, for want of blanks; divide it, or leave such out with max_characters or on_error: skip."
            )
        else:
            left_out["too long to tokenise"] += 1


def every_document(
    settings: Settings, group: Group, left_out: Counter[str], worker: Worker
) -> Iterator[tuple[str, Document]]:
    """All that the source's rules let through, in order, and where each stands: a digest's place among them is its document's."""
    for unit in group.units:
        found = documents(
            unit, settings.selection, settings.on_error, left_out, lambda read: worker.report(read, 0, 0)
        )
        for number, document in enumerate(found, start=1):
            yield f"{unit.file}: document {number}", document


def is_held_out(text: str, held_out: float) -> bool:
    """Whether a document belongs to the held-out split: a matter of its text alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < held_out * 2**64


class HasText(Protocol):
    """Anything with a text."""

    @property
    def text(self) -> str:
        """What is tokenised."""


def tokenize(
    documents: Iterable[T], tokenizer: Tokenizer, threads: Callable[[], int]
) -> Iterator[list[tuple[T, np.ndarray]]]:
    """Batches of documents, in order, each with its ids `[CLS] ... [SEP]` (uint32).

    Args:
        threads: how many may be used now; asked before each batch.
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
    """A batch that has been encoded."""
    return list(zip(batch, encoded.result(), strict=True))


def batches(documents: Iterable[T], threads: Callable[[], int]) -> Iterator[list[T]]:
    """Lists of documents, larger for more threads."""
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

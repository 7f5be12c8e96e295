"""Two tiny tasks that the bundled sample's generator writes, for trials without any data: it knows what it says.

Their texts come from seeds that no corpus has. `SampleEntities`: lines of abstracts, notes and instructions with the diseases, drugs,
symptoms, genes and organs in them. `SampleVerdict`: the last two sentences of an abstract, and what it finds of the treatment. A few
hundred short documents each, so that many names of the test are not among the training examples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from clm_detour.config.protocols import Protocol
from clm_detour.data.sample.abstracts import LABELS
from clm_detour.data.sample.write import generate
from clm_detour.evaluate.tasks.task import Document, Entity, Reading, Splits, Task, find_words

SEED = 2_605_12438
SIZES = {"train": 200, "validation": 60, "test": 160}
TYPES = ("Anatomy", "Disease", "Drug", "Gene", "Symptom")
LINE = re.compile(r"[^\n]{20,250}(?=\n|$)")
SENTENCE_END = re.compile(r"(?<=[a-z)]\.) (?=[A-Z])|\n")
PROTOCOL = Protocol(learning_rate=8e-4, epochs=4, max_tokens=128, warmup=0.1, seeds=(42, 43, 44))


def entity_documents() -> Iterator[Document]:
    """One line of each document of the three sources in turn."""
    count = sum(SIZES.values())
    sources = [generate(source, count, SEED) for source in ("abstracts", "notes", "instructions")]
    for source in cycle(sources):
        made = next(source)
        lines = [m.span() for m in LINE.finditer(made["text"]) if not crossed(m.span(), made["entities"])]
        if lines:
            yield line_of(
                made, *max(lines, key=lambda line: sum(line[0] <= e[0] < line[1] for e in made["entities"]))
            )


def crossed(line: tuple[int, int], entities: list[list[Any]]) -> bool:
    """Whether an entity reaches over the line's edge."""
    return any(start < edge < end for start, end, _ in entities for edge in line)


def line_of(made: dict[str, Any], begin: int, end: int) -> Document:
    """A piece of a generated document."""
    text = made["text"][begin:end]
    entities = tuple(
        Entity(kind, s - begin, e - begin) for s, e, kind in made["entities"] if begin <= s < end
    )
    return Document(made["id"], text, find_words(text), entities)


def verdict_documents() -> Iterator[Document]:
    """The last two sentences of each abstract with its label."""
    for made in generate("abstracts", sum(SIZES.values()), SEED):
        sentences = [sentence for sentence in SENTENCE_END.split(made["text"]) if sentence]
        yield Document(made["id"], " ".join(sentences[-2:]), labels=(made["label"],))


def splits_of(documents: Iterator[Document]) -> Splits:
    """The first documents, divided as `SIZES` says."""
    return {split: list(islice(documents, size)) for split, size in SIZES.items()}


@cache
def read_entities(folder: Path) -> Reading:
    """Nothing is read: the documents are written anew, the same every time."""
    return Reading(splits_of(entity_documents()))


@cache
def read_verdicts(folder: Path) -> Reading:
    """Nothing is read: the documents are written anew, the same every time."""
    return Reading(splits_of(verdict_documents()))


SAMPLE_TASKS = {
    task.name: task
    for task in (
        Task(
            "SampleEntities",
            "en",
            "entities",
            TYPES,
            "micro_f1",
            read_entities,
            elsewhere=True,
            protocol=PROTOCOL,
        ),
        Task(
            "SampleVerdict",
            "en",
            "single_label",
            LABELS,
            "macro_f1",
            read_verdicts,
            elsewhere=True,
            protocol=PROTOCOL,
        ),
    )
}

"""Two small tasks from the generator of the bundled sample, for trials without any data set.

Their texts come from seeds that no corpus uses. `SampleEntities` has lines of abstracts, notes and
instructions with their diseases, drugs, symptoms, genes and organs. `SampleVerdict` has the last two
sentences of abstracts, classified by what they conclude about the treatment. Each has a few hundred short
documents, so many names in the test split do not occur in training.
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
    """Yield one line of each document, from the three sources in turn."""
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
    """Return whether an entity crosses an end of the line."""
    return any(start < edge < end for start, end, _ in entities for edge in line)


def line_of(made: dict[str, Any], begin: int, end: int) -> Document:
    """Return characters [begin, end) of a generated document as a document of the task."""
    text = made["text"][begin:end]
    entities = tuple(
        Entity(kind, s - begin, e - begin) for s, e, kind in made["entities"] if begin <= s < end
    )
    return Document(made["id"], text, find_words(text), entities)


def verdict_documents() -> Iterator[Document]:
    """Yield the last two sentences of each abstract with its label."""
    for made in generate("abstracts", sum(SIZES.values()), SEED):
        sentences = [sentence for sentence in SENTENCE_END.split(made["text"]) if sentence]
        yield Document(made["id"], " ".join(sentences[-2:]), labels=(made["label"],))


def splits_of(documents: Iterator[Document]) -> Splits:
    """Divide the first documents into splits of `SIZES`."""
    return {split: list(islice(documents, size)) for split, size in SIZES.items()}


@cache
def read_entities(folder: Path) -> Reading:
    """Return the task's splits. The documents are generated, and are the same every time."""
    return Reading(splits_of(entity_documents()))


@cache
def read_verdicts(folder: Path) -> Reading:
    """Return the task's splits. The documents are generated, and are the same every time."""
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

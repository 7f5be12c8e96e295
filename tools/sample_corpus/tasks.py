"""The documents of the two sample tasks, with the entities and labels that the generator knows.

Their seed is used by no corpus. A task has a few hundred short documents, so that many names of the test are
not among the training examples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain, cycle, repeat
from typing import Any

from sample_corpus.documents import generate

SEED = 2_605_12438
SIZES = {"train": 200, "validation": 60, "test": 160}
LINE = re.compile(r"[^\n]{20,250}(?=\n|$)")
SENTENCE_END = re.compile(r"(?<=[a-z)]\.) (?=[A-Z])|\n")


def entity_documents() -> Iterator[dict[str, Any]]:
    """Yield one line of each document of the three sources in turn, with its entities."""
    count = sum(SIZES.values())
    sources = [generate(source, count, SEED) for source in ("abstracts", "notes", "instructions")]
    splits = split_names()
    for source in cycle(sources):
        made = next(source)
        lines = [m.span() for m in LINE.finditer(made["text"]) if not crossed(m.span(), made["entities"])]
        if not lines:
            continue
        split = next(splits, None)
        if split is None:
            return
        begin, end = max(lines, key=lambda line: sum(line[0] <= e[0] < line[1] for e in made["entities"]))
        entities = [[s - begin, e - begin, kind] for s, e, kind in made["entities"] if begin <= s < end]
        yield {"split": split, "id": made["id"], "text": made["text"][begin:end], "entities": entities}


def verdict_documents() -> Iterator[dict[str, Any]]:
    """Yield the last two sentences of each abstract with its label."""
    for split, made in zip(split_names(), generate("abstracts", sum(SIZES.values()), SEED), strict=True):
        sentences = [sentence for sentence in SENTENCE_END.split(made["text"]) if sentence]
        yield {"split": split, "id": made["id"], "text": " ".join(sentences[-2:]), "label": made["label"]}


def split_names() -> Iterator[str]:
    """Yield the split of each document of a task."""
    return chain.from_iterable(repeat(split, size) for split, size in SIZES.items())


def crossed(line: tuple[int, int], entities: list[list[Any]]) -> bool:
    """Return whether an entity reaches over an edge of a line."""
    return any(start < edge < end for start, end, _ in entities for edge in line)


TASKS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "SampleEntities": entity_documents, "SampleVerdict": verdict_documents,
}  # fmt: skip

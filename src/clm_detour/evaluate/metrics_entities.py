"""Scores of entities.

By span, as the BRAT evaluator has it (brateval, exact match; used for QUAERO at CLEF eHealth): an entity is found if one of the same
type has the same characters, piece by piece. What is predicted counts as true or false positive, what is annotated and not predicted as false negative; an
annotation that stands there twice can be missed twice. By tag, as seqeval in strict mode (IOB2): the same over the words that entities cover.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from clm_detour.evaluate.tasks.task import Document, Task

Found = tuple[str, Hashable]  # type, and where


@dataclass
class Counts:
    """True positives, false positives and false negatives by type."""

    hits: Counter[str] = field(default_factory=Counter)
    false: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)

    def add(self, gold: Sequence[Found], predicted: Sequence[Found]) -> None:
        """One document's."""
        there, said = set(gold), set(predicted)
        for entity in predicted:
            (self.hits if entity in there else self.false)[entity[0]] += 1
        self.missed.update(entity[0] for entity in gold if entity not in said)

    def of(self, labels: Iterable[str]) -> tuple[float, float, float]:
        """Precision, recall and F1 of some types together; 0 where nothing divides."""
        labels = list(labels)
        hits, false, missed = (
            sum(counts[label] for label in labels) for counts in (self.hits, self.false, self.missed)
        )
        return (
            hits / max(hits + false, 1),
            hits / max(hits + missed, 1),
            2 * hits / max(2 * hits + false + missed, 1),
        )

    def support(self, label: str) -> int:
        """Annotations of a type that were or could have been found."""
        return self.hits[label] + self.missed[label]


def score_entities(task: Task, gold: Sequence[Document], predicted: Sequence[Document]) -> dict[str, float]:
    """Precision, recall and F1 by span, of each type, and F1 by tag where the task is flat.

    Macro and weighted F1 are over the types that are annotated or predicted, as seqeval has it.
    """
    spans, tagged = Counts(), Counts()
    for one, other in zip(gold, predicted, strict=True):
        spans.add(spans_of(one), spans_of(other))
        if task.kind == "entities":
            tagged.add(strict_chunks(tags(one)), strict_chunks(tags(other)))
    precision, recall, f1 = spans.of(task.labels)
    scores = {"micro_f1": f1, "micro_precision": precision, "micro_recall": recall}
    present = [label for label in task.labels if spans.support(label) + spans.false[label]]
    each = {label: spans.of([label])[2] for label in present}
    scores["macro_f1"] = sum(each.values()) / max(len(each), 1)
    weights = {label: spans.support(label) for label in present}
    scores["weighted_f1"] = sum(each[label] * weights[label] for label in present) / max(
        sum(weights.values()), 1
    )
    if task.kind == "entities":
        scores["tag_f1"] = tagged.of(task.labels)[2]
    return scores | {f"f1/{label}": value for label, value in each.items()}


def spans_of(document: Document) -> list[Found]:
    """Type and characters of each entity."""
    return [(one.label, one.fragments or ((one.start, one.end),)) for one in document.entities]


def tags(document: Document) -> list[str]:
    """IOB2 tags of a flat document's words: an entity covers the words it shares a character with, but for those of one before it."""
    found = ["O"] * len(document.words)
    starts, ends = [start for start, _ in document.words], [end for _, end in document.words]
    for entity in document.entities:
        covered = range(bisect_right(ends, entity.start), bisect_left(starts, entity.end))
        free = [place for place in covered if found[place] == "O"]
        for place in free:
            found[place] = f"{'B' if place == free[0] else 'I'}-{entity.label}"
    return found


def strict_chunks(tags: Sequence[str]) -> list[Found]:
    """Entities in IOB2 tags, as (type, (first word, word after the last)); an inside tag that continues nothing is none."""
    found: list[Found] = []
    label, first = "", 0
    for place, tag in enumerate([*tags, "O"]):
        if label and tag != f"I-{label}":
            found.append((label, (first, place)))
            label = ""
        if tag.startswith("B-"):
            label, first = tag[2:], place
    return found

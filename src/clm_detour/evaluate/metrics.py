"""Scores of a task by name. `Task.metric` names the score that is shown in tables.

Classes are scored by scikit-learn. Macro F1 is the mean over the labels that occur among the true or
predicted ones (single label), or over all labels of the task (several labels), as in scikit-learn.
`positive_*` are micro averages without the task's negative class, as BLURB scores ChemProt and GAD.

Entities by span, as the BRAT evaluator counts (brateval, exact match; used for QUAERO at CLEF eHealth): an
entity is found if one of the same type has the same characters in every piece. Each prediction is a true or a
false positive, and each annotation without an equal prediction a false negative; an annotation that occurs
twice can be missed twice. Macro and weighted F1 are over the types that are annotated or predicted, as in
seqeval. `tag_f1` is the same over the words that entities cover, as in seqeval's strict mode (IOB2).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, roc_auc_score

from clm_detour.evaluate.tasks.task import Document, Task

Found = tuple[str, Hashable]  # an entity's type and position


def score(
    task: Task, gold: Sequence[Document], predicted: Sequence[Document], beliefs: np.ndarray | None = None
) -> dict[str, float]:
    """Compute all scores of a task on one split.

    Args:
        predicted: The documents of `gold` in the same order, with the model's entities or labels.
        beliefs: (documents, labels), any number that grows with the model's confidence in a label; needed for
            AUROC only.

    Returns:
        Scores between 0 and 1 by name; those of single labels are called `f1/LABEL`.

    Raises:
        ValueError: If the documents differ, or the task's labels are not known.
    """
    if [one.id for one in gold] != [one.id for one in predicted]:
        raise ValueError("gold and predicted are not the same documents in the same order")
    if not task.labels:
        raise ValueError(f"{task.name} has no labels; `tasks.load` takes them from the data")
    if task.kind in ("single_label", "multi_label"):
        scores = score_classes(task, gold, predicted, beliefs)
    else:
        scores = score_entities(task, gold, predicted)
    return {name: float(value) for name, value in scores.items()}


def score_classes(
    task: Task, gold: Sequence[Document], predicted: Sequence[Document], beliefs: np.ndarray | None
) -> dict[str, float]:
    """Compute F1 scores, accuracy (of whole sets of labels), and AUROC if there are beliefs."""
    truth, answer = label_table(task, gold), label_table(task, predicted)
    _, _, each, support = precision_recall_f1(truth, answer, None)
    several = task.kind == "multi_label"
    macro = np.array([several or occurs for occurs in (truth | answer).any(axis=0).tolist()])
    scores = {
        "micro_f1": precision_recall_f1(truth, answer, "micro")[2],
        "macro_f1": each[macro].mean(),
        "weighted_f1": np.average(each, weights=support) if support.any() else 0.0,
        "accuracy": accuracy_score(truth, answer),
    }
    if several:
        scores["samples_f1"] = precision_recall_f1(truth, answer, "samples")[2]
    if task.negative is not None:
        positive = [place for place, label in enumerate(task.labels) if label != task.negative]
        values = precision_recall_f1(truth[:, positive], answer[:, positive], "micro")
        scores |= zip(("positive_precision", "positive_recall", "positive_f1"), values, strict=False)
    if beliefs is not None:
        scores |= auroc(truth, beliefs)
    return scores | {f"f1/{label}": each[place] for place, label in enumerate(task.labels) if macro[place]}


def label_table(task: Task, documents: Sequence[Document]) -> np.ndarray:
    """Return (documents, labels) of zeros and ones.

    Raises:
        ValueError: If a document has an unknown label, or a single-label task has a document without exactly
            one.
    """
    for document in documents:
        if unknown := set(document.labels) - set(task.labels):
            raise ValueError(f"{document.id} has labels that {task.name} does not have: {sorted(unknown)}")
        if task.kind == "single_label" and len(document.labels) != 1:
            raise ValueError(f"{document.id} has {len(document.labels)} labels, not one")
    return np.array([[label in document.labels for label in task.labels] for document in documents], int)


def precision_recall_f1(truth: np.ndarray, answer: np.ndarray, average: str | None) -> tuple:
    """Return precision, recall, F1 and support by scikit-learn, 0 where nothing divides.

    A column of zeros is added and not counted, because scikit-learn reads a table of one column as one with
    two classes.
    """
    labels = list(range(truth.shape[1]))
    tables = (np.pad(table, ((0, 0), (0, 1))) for table in (truth, answer))
    return precision_recall_fscore_support(*tables, labels=labels, average=average, zero_division=0)


def auroc(truth: np.ndarray, beliefs: np.ndarray) -> dict[str, float]:
    """Compute the mean AUROC over the labels that some, but not all, documents have.

    Returns:
        An empty dict if there is no such label, or a belief is not finite, as after diverged training.
    """
    mixed = truth.any(axis=0) & ~truth.all(axis=0)
    if not mixed.any() or not np.isfinite(beliefs).all():
        return {}
    return {"auroc": roc_auc_score(truth[:, mixed], beliefs[:, mixed])}


@dataclass
class Counts:
    """True positives, false positives and false negatives by entity type."""

    hits: Counter[str] = field(default_factory=Counter)
    false: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)

    def add(self, gold: Sequence[Found], predicted: Sequence[Found]) -> None:
        """Add the counts of one document."""
        annotated, found = set(gold), set(predicted)
        for entity in predicted:
            (self.hits if entity in annotated else self.false)[entity[0]] += 1
        self.missed.update(entity[0] for entity in gold if entity not in found)

    def scores(self, labels: Sequence[str]) -> tuple[float, float, float]:
        """Return precision, recall and F1 of some types together, 0 where nothing divides."""
        hits, false, missed = (
            sum(counts[label] for label in labels) for counts in (self.hits, self.false, self.missed)
        )
        return (
            hits / max(hits + false, 1),
            hits / max(hits + missed, 1),
            2 * hits / max(2 * hits + false + missed, 1),
        )


def score_entities(task: Task, gold: Sequence[Document], predicted: Sequence[Document]) -> dict[str, float]:
    """Compute precision, recall and F1 by span, and `tag_f1` where entities are not nested."""
    spans, tagged = Counts(), Counts()
    for one, other in zip(gold, predicted, strict=True):
        spans.add(spans_of(one), spans_of(other))
        if task.kind == "entities":
            tagged.add(strict_chunks(tags(one)), strict_chunks(tags(other)))
    support = {label: spans.hits[label] + spans.missed[label] for label in task.labels}
    present = [label for label in task.labels if support[label] + spans.false[label]]
    each = {label: spans.scores([label])[2] for label in present}
    weighted = sum(each[label] * support[label] for label in present) / max(sum(support.values()), 1)
    scores = {"macro_f1": sum(each.values()) / max(len(each), 1), "weighted_f1": weighted}
    values = spans.scores(task.labels)
    scores |= zip(("micro_precision", "micro_recall", "micro_f1"), values, strict=True)
    if task.kind == "entities":
        scores["tag_f1"] = tagged.scores(task.labels)[2]
    return scores | {f"f1/{label}": value for label, value in each.items()}


def spans_of(document: Document) -> list[Found]:
    """Return the type and the characters of each entity."""
    return [(one.label, one.fragments or ((one.start, one.end),)) for one in document.entities]


def tags(document: Document) -> list[str]:
    """Return the IOB2 tags of a document's words.

    An entity covers the words with which it shares a character, except those of an earlier entity.
    """
    found = ["O"] * len(document.words)
    starts, ends = [start for start, _ in document.words], [end for _, end in document.words]
    for entity in document.entities:
        covered = range(bisect_right(ends, entity.start), bisect_left(starts, entity.end))
        free = [place for place in covered if found[place] == "O"]
        for place in free:
            found[place] = f"{'B' if place == free[0] else 'I'}-{entity.label}"
    return found


def strict_chunks(tags: Sequence[str]) -> list[Found]:
    """Return the entities in IOB2 tags as (type, (first word, word after the last)).

    An inside tag that does not continue an entity is ignored.
    """
    found: list[Found] = []
    label, first = "", 0
    for place, tag in enumerate([*tags, "O"]):
        if label and tag != f"I-{label}":
            found.append((label, (first, place)))
            label = ""
        if tag.startswith("B-"):
            label, first = tag[2:], place
    return found

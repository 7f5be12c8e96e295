"""Count what is in a task's files but in no document, and what cannot be scored.

`{"test annotations by overlap": 98, "train texts cut at 512 tokens": 7}`. A count begins with its split,
unless the thing was left out before the splits were drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from clm_detour.evaluate.tasks.task import Counts, Document, Splits, Task


def of_data(task: Task, splits: Splits) -> dict[str, int]:
    """Return the counts of what the reader left out, and of labels that no training document has."""
    found = Counter(task.skipped)
    trained = set(labels_of(splits["train"]))
    for split, documents in splits.items():
        found.update(f"{split} {reason}" for one in documents for reason in reasons(one))
        unseen = sum(label not in trained for label in labels_of(documents))
        found.update({f"{split} labels that training has not": unseen} if unseen else {})
    return dict(found)


def reasons(document: Document) -> Iterator[str]:
    """Yield a reason for each thing that a document lacks."""
    yield from document.reasons
    for entity in document.left_out:
        yield "annotations in several pieces" if entity.fragments else "annotations by overlap"


def by_limit(splits: Splits, chosen: Splits) -> dict[str, int]:
    """Return the number of documents of each split that were not chosen."""
    counts = {split: len(documents) - len(chosen[split]) for split, documents in splits.items()}
    return {f"{split} documents by the limit": count for split, count in counts.items() if count}


def labels_of(documents: Iterable[Document]) -> Iterator[str]:
    """Yield the label of each entity, and each label of a document."""
    for one in documents:
        yield from (entity.label for entity in one.entities)
        yield from one.labels


def of_model(counts: Mapping[str, Mapping[str, int]], max_tokens: int) -> dict[str, int]:
    """Return the counts of what one model cannot read, given the counts of its examples by split."""
    named = {
        "documents_cut": f"texts cut at {max_tokens} tokens",
        "inexact_entities": "entities that its words cannot say exactly",
        "too_wide_entities": "entities wider than any of training",
    }
    return {
        f"{split} {phrase}": of_split[key]
        for split, of_split in counts.items()
        for key, phrase in named.items()
        if of_split.get(key)
    }


def of_records(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the counts of what the models of some finished runs cannot read, and of runs without a score.

    A count that is not the same for all models names its model.
    """
    found: dict[str, dict[str, int]] = {}
    for record in records:
        if record["score"] is None:
            lost = found.setdefault("runs without a score", {})
            lost[record["model"]] = lost.get(record["model"], 0) + 1
        for phrase, count in of_model(record["counts"], record["protocol"]["max_tokens"]).items():
            found.setdefault(phrase, {})[record["model"]] = count
    models = {record["model"] for record in records}
    together: dict[str, int] = {}
    for phrase, by_model in found.items():
        if by_model.keys() == models and len(set(by_model.values())) == 1:
            together[phrase] = next(iter(by_model.values()))
        else:
            together |= {f"{phrase} ({model})": count for model, count in by_model.items()}
    return together


def sentence(name: str, left_out: Counts) -> str:
    """Return a sentence like `GAD leaves out: train documents by the limit 7, test labels by rename 98`."""
    return f"{name} leaves out: {', '.join(f'{what} {count:,}' for what, count in left_out.items())}"

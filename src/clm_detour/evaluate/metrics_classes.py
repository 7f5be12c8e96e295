"""Scores of documents' labels, by scikit-learn's definitions.

Macro and weighted F1 are over the classes that occur among the true or predicted (one label), or over all labels of the task (several), which is
scikit-learn's default for each. `positive_*` is micro F1 without the class that stands for none of the others, as BLURB scores ChemProt and GAD.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import accuracy_score, roc_auc_score

from clm_detour.evaluate.tasks.task import Document, Task


def score_classes(
    task: Task, gold: Sequence[Document], predicted: Sequence[Document], scores: np.ndarray | None = None
) -> dict[str, float]:
    """F1 of every average, of each label, accuracy (of whole sets of labels), and AUROC if there are scores.

    Args:
        scores: documents x labels.
    """
    truth, answer = indicators(task, gold), indicators(task, predicted)
    occurs = np.logical_or(truth.any(axis=0), answer.any(axis=0)) | (task.kind == "multi_label")
    each = f1(truth, answer, axis=0)
    support = truth.sum(axis=0)
    found = {
        "micro_f1": f1(truth, answer),
        "macro_f1": each[occurs].mean(),
        "weighted_f1": np.average(each, weights=support) if support.any() else 0.0,
    }
    if task.kind == "multi_label":
        found["samples_f1"] = f1(truth, answer, axis=1).mean()
    found["accuracy"] = accuracy_score(truth, answer)
    if task.negative is not None:
        found |= positive(task, truth, answer)
    if scores is not None:
        found |= auroc(truth, scores)
    found |= {f"f1/{label}": each[place] for place, label in enumerate(task.labels) if occurs[place]}
    return {name: float(value) for name, value in found.items()}


def indicators(task: Task, documents: Sequence[Document]) -> np.ndarray:
    """Documents x labels, 0 or 1.

    Raises:
        ValueError: a document has a label that the task has not, or not exactly one where there must be one.
    """
    places = {label: place for place, label in enumerate(task.labels)}
    table = np.zeros((len(documents), len(places)), dtype=int)
    for row, document in enumerate(documents):
        if unknown := set(document.labels) - set(places):
            raise ValueError(f"{document.id} has labels that {task.name} has not: {sorted(unknown)}")
        if task.kind == "single_label" and len(document.labels) != 1:
            raise ValueError(f"{document.id} has {len(document.labels)} labels, not one")
        table[row, [places[label] for label in document.labels]] = 1
    return table


def positive(task: Task, truth: np.ndarray, answer: np.ndarray) -> dict[str, float]:
    """Micro-averaged, without the negative class."""
    kept = [place for place, label in enumerate(task.labels) if label != task.negative]
    truth, answer = truth[:, kept], answer[:, kept]
    right = (truth & answer).sum()
    return {
        "positive_f1": float(f1(truth, answer)),
        "positive_precision": float(ratio(right, answer.sum())),
        "positive_recall": float(ratio(right, truth.sum())),
    }


def f1(truth: np.ndarray, answer: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Of all cells together, of each label (axis 0) or of each document (axis 1); 0 where there is nothing.

    scikit-learn's own takes a table with one column for two classes.
    """
    return ratio(2 * (truth & answer).sum(axis), truth.sum(axis) + answer.sum(axis))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where whole is."""
    return np.where(whole > 0, part / np.maximum(whole, 1), 0.0)


def auroc(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Mean over the labels that some documents have and some have not; of two exclusive classes both are the same.

    Empty where there is no such label, or a score is not finite, as after a training that diverged.
    """
    both = [place for place in range(truth.shape[1]) if 0 < truth[:, place].sum() < len(truth)]
    if not both or not np.isfinite(scores).all():
        return {}
    return {"auroc": float(np.mean([roc_auc_score(truth[:, place], scores[:, place]) for place in both]))}

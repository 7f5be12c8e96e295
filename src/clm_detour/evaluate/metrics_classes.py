"""Scores of documents' labels, by scikit-learn's definitions.

Macro and weighted F1 are over the classes that occur among the true or predicted (one label), or over all labels of the task (several), which is
scikit-learn's default for each. `positive_*` is micro F1 without the class that stands for none of the others, as BLURB scores ChemProt and GAD.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support, roc_auc_score

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
    each = np.array([f1_score(*label, zero_division=0) for label in zip(truth.T, answer.T, strict=True)])
    support = truth.sum(axis=0)
    found = {
        "micro_f1": micro(truth, answer)[2],
        "macro_f1": each[occurs].mean(),
        "weighted_f1": np.average(each, weights=support) if support.any() else 0.0,
    }
    if task.kind == "multi_label":
        found["samples_f1"] = samples_f1(truth, answer)
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
    precision, recall, f1 = micro(truth[:, kept], answer[:, kept])
    return {"positive_f1": f1, "positive_precision": precision, "positive_recall": recall}


def micro(truth: np.ndarray, answer: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1 over all cells. scikit-learn's own micro average takes a single column for two classes."""
    scores = precision_recall_fscore_support(truth.ravel(), answer.ravel(), average="binary", zero_division=0)
    return scores[:3]


def samples_f1(truth: np.ndarray, answer: np.ndarray) -> float:
    """Mean of the documents' F1."""
    both, either = (truth & answer).sum(axis=1), truth.sum(axis=1) + answer.sum(axis=1)
    return float(np.divide(2 * both, either, out=np.zeros(len(both)), where=either > 0).mean())


def auroc(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Mean over the labels that some documents have and some have not; of two exclusive classes both are the same.

    Empty where there is no such label, or a score is not finite, as after a training that diverged.
    """
    both = [place for place in range(truth.shape[1]) if 0 < truth[:, place].sum() < len(truth)]
    if not both or not np.isfinite(scores).all():
        return {}
    return {"auroc": float(np.mean([roc_auc_score(truth[:, place], scores[:, place]) for place in both]))}

"""Scores of a task: the documents as they are and as a model has them -> scores by name. `Task.metric` says which stands in the table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clm_detour.evaluate.metrics_classes import score_classes
from clm_detour.evaluate.metrics_entities import score_entities
from clm_detour.evaluate.tasks.task import Document, Task


def score(
    task: Task, gold: Sequence[Document], predicted: Sequence[Document], scores: np.ndarray | None = None
) -> dict[str, float]:
    """All scores of a task on one split.

    Args:
        predicted: the same documents in the same order, with the model's entities or labels.
        scores: of each document and label (classification only), anything that grows with the model's belief; for AUROC.

    Returns:
        Scores between 0 and 1 by name; of single labels as `f1/LABEL`.

    Raises:
        ValueError: the documents are not the same, or the task's labels are not known yet.
    """
    if [one.id for one in gold] != [one.id for one in predicted]:
        raise ValueError("gold and predicted are not the same documents in the same order")
    if not task.labels:
        raise ValueError(f"{task.name} has no labels; `tasks.load` takes them from the data")
    if task.kind in ("single_label", "multi_label"):
        return score_classes(task, gold, predicted, scores)
    return score_entities(task, gold, predicted)

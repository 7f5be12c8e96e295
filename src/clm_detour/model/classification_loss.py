"""The losses of the classification heads, chosen by `problem_type` as in transformers; in fp32.

Shapes: N documents, T tokens, C labels.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from clm_detour.model.documents import IGNORED
from clm_detour.utils.errors import UserError

ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]
PROBLEM_TYPES: tuple[ProblemType, ...] = get_args(ProblemType)
REGRESSION, SINGLE_LABEL, MULTI_LABEL = PROBLEM_TYPES
WHOLE = (torch.int64, torch.int32)


def check_problem_type(name: str) -> None:
    """Raise a `UserError` unless the name is one of `PROBLEM_TYPES`."""
    if name not in PROBLEM_TYPES:
        raise UserError(f"problem_type {name!r} is not known; use one of {', '.join(PROBLEM_TYPES)}.")


def problem_type_of(labels: Tensor, num_labels: int) -> ProblemType:
    """Return the problem type that transformers assumes if the config does not name one.

    One label is regression; labels that are whole numbers are single-label classification.
    """
    if num_labels == 1:
        return REGRESSION
    classes = labels.dtype in WHOLE or (labels.dim() == 1 and not labels.dtype.is_floating_point)
    return SINGLE_LABEL if classes else MULTI_LABEL


def document_loss(logits_NC: Tensor, labels: Tensor, problem_type: ProblemType) -> Tensor:
    """Return the mean loss of N documents.

    Args:
        logits_NC: Logits.
        labels: For single-label problems (N,) integers, -100 for a document that is left out. For multi-label
            problems (N, C), from 0 to 1. For regression (N, C), or (N,) if C is 1. NaN is refused on a CPU
            only; on a GPU, where the host does not wait for the labels, it makes the loss NaN.
        problem_type: One of `PROBLEM_TYPES`.

    Returns:
        Mean cross-entropy over the documents with a label, mean binary cross-entropy or mean squared error
        over all N * C; in nats for the first two; 0 if there are no labels.

    Raises:
        UserError: If shape, kind or (checked on a CPU only) values of the labels do not fit.
    """
    check_problem_type(problem_type)
    documents, num_labels = logits_NC.shape
    shape = (documents,) if problem_type == SINGLE_LABEL else (documents, num_labels)
    if problem_type == REGRESSION and num_labels == 1 and labels.dim() == 1:
        labels = labels[:, None]
    if tuple(labels.shape) != shape:
        raise UserError(
            f"labels has shape {tuple(labels.shape)}; {problem_type} of {documents} documents with "
            f"{num_labels} labels wants {shape}. Give one entry for each document, or set problem_type to "
            f"one of {', '.join(PROBLEM_TYPES)}."
        )
    if problem_type == SINGLE_LABEL:
        return mean_cross_entropy(logits_NC, labels)
    if not labels.numel():
        return logits_NC.float().sum()
    on_cpu = labels.device.type == "cpu"
    if problem_type == REGRESSION:
        if on_cpu and not labels.isfinite().all():
            raise UserError(
                "A label is not a finite number, as those of regression are; leave documents without a "
                "value out."
            )
        return F.mse_loss(logits_NC.float(), labels.float())
    if on_cpu and not ((labels >= 0) & (labels <= 1)).all():  # False for NaN
        raise UserError(
            "A label is not from 0 to 1, as those of multi_label_classification are; repair the labels."
        )
    return F.binary_cross_entropy_with_logits(logits_NC.float(), labels.float())


def mean_cross_entropy(logits_TC: Tensor, labels_T: Tensor) -> Tensor:
    """Return the mean over the labels that are not -100, in nats; 0 if there are none (NaN in transformers).

    Raises:
        UserError: If labels are not integers, or (checked on a CPU only) not below C.
    """
    if labels_T.dtype not in WHOLE:
        raise UserError(f"labels are {labels_T.dtype}; classes are integers: give them as torch.long.")
    known_T = labels_T != IGNORED
    outside_T = known_T & ((labels_T < 0) | (labels_T >= logits_TC.shape[1]))
    if labels_T.device.type == "cpu" and outside_T.any():
        raise UserError(
            f"A label is {int(labels_T[outside_T][0])}; with num_labels {logits_TC.shape[1]} labels are 0 to "
            f"{logits_TC.shape[1] - 1}, or {IGNORED} where there is none."
        )
    total = F.cross_entropy(logits_TC.float(), labels_T.long(), ignore_index=IGNORED, reduction="sum")
    return total / known_T.sum().clamp_min(1)

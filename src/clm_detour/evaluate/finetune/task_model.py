"""The model for each kind of task: an encoder with one of three heads. Checks of a task's data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from clm_detour.evaluate.finetune.batch import Batch, Example
from clm_detour.evaluate.finetune.classifier import DocumentClassifier, positive_weights
from clm_detour.evaluate.finetune.span_classifier import HEADS, SpanClassifier
from clm_detour.evaluate.finetune.tagger import EntityTagger
from clm_detour.evaluate.tasks.task import SPLITS, Document, Splits, Task
from clm_detour.measure.encoder import Encoder
from clm_detour.utils.errors import UserError

ENTITY_KINDS = ("entities", "nested_entities")


class TaskModel(Protocol):
    """An encoder with a head, as training and scoring use it. The newly initialized weights are in `head`."""

    encoder: Encoder
    head: Any

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of a batch."""

    def predict(self, batch: Batch) -> list[Any]:
        """Return an output for each example; for classes these are logits."""

    def read(
        self, documents: Sequence[Document], examples: Sequence[Example], outputs: Sequence[Any]
    ) -> list[Document]:
        """Return the documents with the entities or labels that the outputs of all examples give."""


def make_examples(
    task: Task, documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[Example], dict[str, int]]:
    """Return the examples of a split, and counts of what was cut or cannot be represented.

    Raises:
        UserError: If a document has a label that the task does not list.
    """
    check_labels(task, documents)
    by_line = task.protocol.by_line
    if task.kind == "entities":
        return EntityTagger.examples(documents, task.labels, tokenizer, max_tokens, by_line)
    if task.kind == "nested_entities":
        widest = HEADS[task.protocol.head].widest
        return SpanClassifier.examples(documents, task.labels, tokenizer, max_tokens, by_line, widest)
    several = task.kind == "multi_label"
    return DocumentClassifier.examples(documents, task.labels, tokenizer, max_tokens, several)


def make_task_model(
    task: Task, encoder: Encoder, training: Sequence[Document], examples: Sequence[Example]
) -> TaskModel:
    """Return `encoder` with the head that the task needs, initialized from torch's random number generator.

    Args:
        training: Training documents, for the weights of labels.
        examples: Examples of `training`, for the width of spans.
    """
    if task.kind == "entities":
        return cast(TaskModel, EntityTagger(task.labels, encoder))
    if task.kind == "nested_entities":
        widest, protocol = max(widths(examples), default=1), task.protocol
        head = HEADS[protocol.head](encoder.hidden_size, len(task.labels))
        return cast(TaskModel, SpanClassifier(task.labels, encoder, head, widest))
    several, protocol = task.kind == "multi_label", task.protocol
    weights = positive_weights(training, task.labels) if several and protocol.positive_weight else None
    return cast(TaskModel, DocumentClassifier(task.labels, encoder, several, protocol.at_least_one, weights))


def count_too_wide(examples: Sequence[Example], training: Sequence[Example]) -> int:
    """Return the number of nested entities wider than any in training, which `SpanClassifier` cannot find."""
    widest = max(widths(training), default=1)
    return sum(width > widest for width in widths(examples))


def widths(examples: Sequence[Example]) -> list[int]:
    """Return the number of words of each nested entity."""
    return [last - first + 1 for example in examples for first, last, _ in example.target.tolist()]


def check_splits(task: Task, splits: Splits) -> None:
    """Check that a task can be learned and scored.

    Raises:
        UserError: If a split is empty or has nothing to find, or if the metric is AUROC and the test split
            has none.
    """
    ignored = {task.negative} if task.metric == "positive_f1" else set()
    for split in SPLITS:
        if not splits.get(split):
            raise UserError(
                f"{task.name} has no documents in its {split} split; it cannot be fine-tuned and scored."
            )
        if not any(one.entities or set(one.labels) - ignored for one in splits[split]):
            target = "an entity" if task.kind in ENTITY_KINDS else "a label that counts"
            raise UserError(
                f"No document of the {split} split of {task.name} has {target}, so the task cannot be "
                "fine-tuned and scored; correct the data, or raise `documents` if it is set."
            )
    if task.metric == "auroc" and len({one.labels for one in splits["test"]}) == 1:
        raise UserError(
            f"All test documents of {task.name} have the same labels, so it has no AUROC; "
            "choose another metric."
        )


def check_labels(task: Task, documents: Sequence[Document]) -> None:
    """Check that all labels are the task's, and that a document of a single-label task has exactly one.

    Raises:
        UserError: If not; the message names the first such document.
    """
    known = set(task.labels)
    for document in documents:
        given = (
            [entity.label for entity in document.entities] if task.kind in ENTITY_KINDS else document.labels
        )
        unknown = next((label for label in given if label not in known), None)
        if unknown is not None:
            raise UserError(
                f"{task.name}: document {document.id} has the label {unknown!r}, which is not one of the "
                f"task's ({', '.join(task.labels)}); correct the data or the task's labels."
            )
        if task.kind == "single_label" and len(document.labels) != 1:
            raise UserError(
                f"{task.name}: document {document.id} has {len(document.labels)} labels; "
                "a single-label task needs exactly one."
            )

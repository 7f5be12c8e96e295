"""Which of the three heads a task's kind asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from clm_detour.evaluate.finetune.batch import Batch, Example
from clm_detour.evaluate.finetune.labelling import Labelling, positive_weights
from clm_detour.evaluate.finetune.spans import Spans
from clm_detour.evaluate.finetune.tagging import Tagging
from clm_detour.evaluate.tasks.task import SPLITS, Document, Splits, Task
from clm_detour.measure.encoder import Encoder
from clm_detour.utils.errors import UserError

ENTITY_KINDS = ("entities", "nested_entities")


class Problem(Protocol):
    """An encoder with a head: what training and scoring need. Its fresh weights are in `head`."""

    encoder: Encoder
    head: Any

    def loss(self, batch: Batch) -> Tensor:
        """The mean loss of a batch."""

    def answers(self, batch: Batch) -> list[Any]:
        """What it says of each example; for labels their logits."""

    def read(
        self, documents: Sequence[Document], examples: Sequence[Example], answers: Sequence[Any]
    ) -> list[Document]:
        """Answers of all examples -> documents with entities or labels."""


def make_examples(
    task: Task, documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[Example], dict[str, int]]:
    """A split as examples, and counts of what was cut, split or cannot be said.

    Raises:
        UserError: a document has a label that the task does not list.
    """
    check_labels(task, documents)
    if task.kind == "entities":
        return Tagging.examples(documents, task.labels, tokenizer, max_tokens)
    if task.kind == "nested_entities":
        return Spans.examples(documents, task.labels, tokenizer, max_tokens)
    several = task.kind == "multi_label"
    return Labelling.examples(documents, task.labels, tokenizer, max_tokens, several)


def make_problem(
    task: Task, encoder: Encoder, training: Sequence[Document], examples: Sequence[Example]
) -> Problem:
    """The head that the task needs, drawn from torch's generator, on `encoder`.

    Args:
        training: documents, which say how labels are weighed.
        examples: of `training`, which say how wide spans are.
    """
    if task.kind == "entities":
        return cast(Problem, Tagging(task.labels, encoder))
    if task.kind == "nested_entities":
        return cast(Problem, Spans(task.labels, encoder, max(widths(examples), default=1)))
    several = task.kind == "multi_label"
    weights = positive_weights(training, task.labels) if several and task.protocol.positive_weight else None
    return cast(Problem, Labelling(task.labels, encoder, several, weights))


def too_wide(examples: Sequence[Example], training: Sequence[Example]) -> int:
    """Return how many nested entities are wider than any of training, so that `Spans` does not look at them."""
    widest = max(widths(training), default=1)
    return sum(width > widest for width in widths(examples))


def widths(examples: Sequence[Example]) -> list[int]:
    """Return the words of each nested entity."""
    return [last - first + 1 for example in examples for first, last, _ in example.target.tolist()]


def check_splits(task: Task, splits: Splits) -> None:
    """Refuse a task that cannot be learned or scored.

    Raises:
        UserError: a split is empty or nothing is to be found in it, or the test has no AUROC where that is the metric.
    """
    ignored = {task.negative} if task.metric == "positive_f1" else set()
    for split in SPLITS:
        if not splits.get(split):
            raise UserError(
                f"{task.name} has no documents in its {split} split; it cannot be fine-tuned and scored."
            )
        if not any(one.entities or set(one.labels) - ignored for one in splits[split]):
            what = "an entity" if task.kind in ENTITY_KINDS else "a label that counts"
            raise UserError(
                f"No document of the {split} split of {task.name} has {what}, so that it cannot be fine-tuned and scored; correct the data, "
                "or take more of it if `documents` is set."
            )
    if task.metric == "auroc" and len({one.labels for one in splits["test"]}) == 1:
        raise UserError(
            f"All test documents of {task.name} have the same labels, so it has no AUROC; choose another metric."
        )


def check_labels(task: Task, documents: Sequence[Document]) -> None:
    """Every label is one of the task's, and a document of a single-label task has exactly one.

    Raises:
        UserError: names the first document for which that does not hold.
    """
    known = set(task.labels)
    for document in documents:
        given = (
            [entity.label for entity in document.entities] if task.kind in ENTITY_KINDS else document.labels
        )
        unknown = next((label for label in given if label not in known), None)
        if unknown is not None:
            raise UserError(
                f"{task.name}: document {document.id} has the label {unknown!r}, which is not one of the task's "
                f"({', '.join(task.labels)}); correct the data or the task's labels."
            )
        if task.kind == "single_label" and len(document.labels) != 1:
            raise UserError(
                f"{task.name}: document {document.id} has {len(document.labels)} labels; a single-label task wants exactly one."
            )

"""Classes of documents: a linear head on the pooled states; one class of each (cross-entropy) or any number (binary cross-entropy).

Relation classification is the same: the sentence comes with its two entities marked or masked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from clm_detour.evaluate.finetune.batch import Batch, Example
from clm_detour.evaluate.finetune.windows import frame_text
from clm_detour.evaluate.tasks.task import Document
from clm_detour.measure.encoder import Encoder, output_layer
from clm_detour.model.classification_loss import mean_cross_entropy


class Labelling(nn.Module):
    """The problem.

    Args:
        several: a document may have any number of labels; those above a probability of one half are its answer.
        positive_weight: (C,), weighs each label's positives in the loss; None: all weigh the same.
    """

    def __init__(
        self, labels: Sequence[str], encoder: Encoder, several: bool, positive_weight: Tensor | None = None
    ):
        super().__init__()
        self.labels = labels
        self.encoder = encoder
        self.several = several
        self.positive_weight = positive_weight
        self.drop = nn.Dropout(encoder.dropout)
        self.head = output_layer(encoder, len(labels))

    @staticmethod
    def examples(
        documents: Sequence[Document],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        several: bool,
    ) -> tuple[list[Example], dict[str, int]]:
        """Texts with their classes; and how many were cut."""
        ids, cut = frame_text(tokenizer, [document.text for document in documents], max_tokens)
        targets = (target(document, labels, several) for document in documents)
        examples = [
            Example(place, tokens, [], wanted)
            for place, (tokens, wanted) in enumerate(zip(ids, targets, strict=True))
        ]
        return examples, {"documents_cut": cut}

    def logits(self, batch: Batch) -> Tensor:
        """(N, C)."""
        pooled_NE = self.encoder.pool(self.encoder(batch.ids, batch.lengths), batch.lengths)
        return self.head(self.drop(self.encoder.apply_head(pooled_NE)))

    def loss(self, batch: Batch) -> Tensor:
        """Mean over documents, and over labels if there may be several; nats."""
        logits_NC = self.logits(batch).float()
        if not self.several:
            return mean_cross_entropy(logits_NC, batch.stack_targets())
        weight = None if self.positive_weight is None else self.positive_weight.to(batch.device)
        return F.binary_cross_entropy_with_logits(logits_NC, batch.stack_targets(), pos_weight=weight)

    def answers(self, batch: Batch) -> list[list[float]]:
        """The logits of each document, (C,)."""
        return self.logits(batch).float().tolist()

    def read(
        self, documents: Sequence[Document], examples: Sequence[Example], answers: Sequence[list[float]]
    ) -> list[Document]:
        """Answers -> documents."""
        return [
            dataclasses.replace(document, entities=(), labels=tuple(self.chosen(answer)))
            for document, answer in zip(documents, answers, strict=True)
        ]

    def chosen(self, logits: Sequence[float]) -> list[str]:
        """The likeliest label, or all that are likelier than not."""
        if not self.several:
            return [self.labels[max(range(len(logits)), key=logits.__getitem__)]]
        return [label for label, logit in zip(self.labels, logits, strict=True) if logit > 0]


def target(document: Document, labels: Sequence[str], several: bool) -> Tensor:
    """() int64, or (C,) of zeros and ones."""
    if not several:
        return torch.tensor(labels.index(document.labels[0]))
    return torch.tensor([float(label in document.labels) for label in labels])


def positive_weights(documents: Sequence[Document], labels: Sequence[str]) -> Tensor:
    """(C,): negatives over positives of each label; 1 for one that never or always occurs."""
    positives = torch.tensor(
        [sum(label in d.labels for d in documents) for label in labels], dtype=torch.float
    )
    negatives = len(documents) - positives
    both = (positives > 0) & (negatives > 0)
    return torch.where(both, negatives / positives.clamp_min(1), torch.ones(()))

"""Classification of documents: a linear head on the pooled states.

A document has one class (cross-entropy) or any number of labels (binary cross-entropy). Relation
classification is the same problem; the data set marks or masks the two entities in the text.

Shapes: N documents, C labels, E hidden size.
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


class DocumentClassifier(nn.Module):
    """An encoder with a classification head.

    Args:
        several: Whether a document may have any number of labels. The answer is then all labels with a
            probability above 0.5.
        at_least_one: Whether the answer is the most likely label where no label has such a probability.
        positive_weight: (C,), weight of each label's positives in the loss; None for equal weights.
    """

    def __init__(
        self,
        labels: Sequence[str],
        encoder: Encoder,
        several: bool,
        at_least_one: bool = False,
        positive_weight: Tensor | None = None,
    ):
        super().__init__()
        self.labels = labels
        self.encoder = encoder
        self.several = several
        self.at_least_one = at_least_one
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
        """Return an example for each text, and the number of texts that were cut."""
        ids, cut = frame_text(tokenizer, [document.text for document in documents], max_tokens)
        targets = (target(document, labels, several) for document in documents)
        examples = [
            Example(place, tokens, [], wanted)
            for place, (tokens, wanted) in enumerate(zip(ids, targets, strict=True))
        ]
        return examples, {"documents_cut": cut}

    def logits(self, batch: Batch) -> Tensor:
        """Return (N, C)."""
        pooled_NE = self.encoder.pool(self.encoder(batch.ids, batch.lengths), batch.lengths)
        return self.head(self.drop(self.encoder.apply_head(pooled_NE)))

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean over documents, and over labels if there may be several, in nats."""
        logits_NC = self.logits(batch).float()
        if not self.several:
            return mean_cross_entropy(logits_NC, batch.stack_targets())
        weight = None if self.positive_weight is None else self.positive_weight.to(batch.device)
        return F.binary_cross_entropy_with_logits(logits_NC, batch.stack_targets(), pos_weight=weight)

    def predict(self, batch: Batch) -> list[list[float]]:
        """Return the logits (C,) of each document."""
        return self.logits(batch).float().tolist()

    def read(
        self, documents: Sequence[Document], examples: Sequence[Example], outputs: Sequence[list[float]]
    ) -> list[Document]:
        """Return the documents with the predicted labels."""
        return [
            dataclasses.replace(document, entities=(), labels=tuple(self.chosen(logits)))
            for document, logits in zip(documents, outputs, strict=True)
        ]

    def chosen(self, logits: Sequence[float]) -> list[str]:
        """Return the most likely label, or all labels with a probability above 0.5."""
        passing = [label for label, logit in zip(self.labels, logits, strict=True) if logit > 0]
        if self.several and (passing or not self.at_least_one):
            return passing
        return [self.labels[max(range(len(logits)), key=logits.__getitem__)]]


def target(document: Document, labels: Sequence[str], several: bool) -> Tensor:
    """Return the class, () int64, or the labels, (C,) of zeros and ones."""
    if not several:
        return torch.tensor(labels.index(document.labels[0]))
    return torch.tensor([float(label in document.labels) for label in labels])


def positive_weights(documents: Sequence[Document], labels: Sequence[str]) -> Tensor:
    """Return (C,), negatives over positives of each label, and 1 for a label that never or always occurs."""
    positives = torch.tensor(
        [sum(label in d.labels for d in documents) for label in labels], dtype=torch.float
    )
    negatives = len(documents) - positives
    both = (positives > 0) & (negatives > 0)
    return torch.where(both, negatives / positives.clamp_min(1), torch.ones(()))

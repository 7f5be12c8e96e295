"""Classification of documents and of tokens: body and prediction head as pretrained, a classifier on top.

Parameters are as in transformers' classes of the same names. There are two ways in. `from_pretrained` opens a folder of the same
class, strictly. `from_encoder` starts fine-tuning: it takes body and head from any ModernBERT folder, a pretraining one above
all, strictly too, leaves the old output layer out, and makes a fresh classifier. A `ModernBertModel` has no head, so that is
made fresh as well.

Shapes: B rows, L positions of a row, T tokens, E hidden size, N documents, C labels.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import ModernBertConfig
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput

from clm_detour.model import hf
from clm_detour.model.backbone import ModernBertPreTrainedModel
from clm_detour.model.classification_loss import (
    check_problem_type,
    document_loss,
    mean_cross_entropy,
    problem_type_of,
)
from clm_detour.model.documents import Documents, Unpadded
from clm_detour.model.input_checks import check_shape, check_tensor
from clm_detour.model.layers import Head
from clm_detour.model.weights import as_with_head, is_headless, modules_of, read_weights
from clm_detour.utils.errors import UserError

OUTPUT_LAYERS = ("decoder.", "classifier.")
CLS, MEAN = "cls", "mean"
Classifier = TypeVar("Classifier", bound="ModernBertClassifier")
logger = logging.getLogger(__name__)


class ModernBertClassifier(ModernBertPreTrainedModel):
    """What both classes share: dropout and classifier over the prediction head.

    Args:
        config: its `id2label` says how many labels there are; `classifier_dropout` acts before the classifier.
        attention_backend: see `ModernBertPreTrainedModel`.

    Raises:
        UserError: the config asks for something that the network does not do exactly.
    """

    def __init__(self, config: ModernBertConfig, attention_backend: str | None = None):
        num_labels = _number_of_labels(config)
        super().__init__(config, attention_backend)
        self.num_labels = num_labels
        self.drop = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            self.draw(self.classifier)

    def draw(self, classifier: nn.Linear) -> None:
        """Draw the weights of a fresh output layer, as transformers does; its bias is zero."""
        self._fill(classifier, self.config.hidden_size**-0.5)

    def classify(self, hidden: Tensor) -> Tensor:
        """(..., E) -> (..., C)."""
        return self.classifier(self.drop(self.head(hidden)))

    @classmethod
    def from_encoder(
        cls: type[Classifier],
        path: str | os.PathLike[str],
        *,
        num_labels: int | None = None,
        id2label: Mapping[int, str] | None = None,
        classifier_dropout: float | None = None,
        revision: str | None = None,
        attention_backend: str | None = None,
    ) -> Classifier:
        """Body and head of a folder or hub id, in fp32, with a fresh classifier, in evaluation mode.

        What is fresh is drawn from torch's generator, and a warning in the log names it. The mask is bidirectional, also if the
        folder was saved with the causal one; another warning says so.

        Args:
            path: a masked-LM folder, one of another classifier, whose labels and problem type are forgotten, or a
                `ModernBertModel`, which has no prediction head: it is drawn as for a new model.
            num_labels: C; not needed beside `id2label`.
            id2label: the labels' names, by their numbers from 0; without it they are LABEL_0, LABEL_1, ...
            classifier_dropout: None: as in the folder's config.
            revision: branch, tag or commit on the Hub.
            attention_backend: see `ModernBertPreTrainedModel`.

        Raises:
            UserError: the labels are not said or do not fit together, there is no such model, its config cannot be honoured
                exactly, or weights of body or head are missing, mis-shaped or unknown.
        """
        changes = _label_keys(num_labels, id2label) | _given(classifier_dropout=classifier_dropout)
        return cls._from_encoder(path, changes, revision, attention_backend)

    @classmethod
    def _from_encoder(
        cls: type[Classifier],
        path: str | os.PathLike[str],
        changes: Mapping[str, Any],
        revision: str | None,
        attention_backend: str | None,
    ) -> Classifier:
        folder = hf.fetch(path, revision)
        config = hf.read_config(folder, changes)
        model = hf.without_weights(cls, config, attention_backend)
        weights = read_weights(folder)
        headless = is_headless(weights)
        fresh = model._draw_fresh(headless)
        taken = {name: w for name, w in as_with_head(weights).items() if not name.startswith(OUTPUT_LAYERS)}
        hf.fill(model, {**taken, **fresh}, str(path), torch.float32)
        left_out = "" if headless else modules_of(name for name in weights if name not in taken)
        logger.warning(
            "%s from %s: %s, %s%s and must be trained.", cls.__name__, path,
            "the model is taken over" if headless else "model and head are taken over",
            f"{left_out} left out, " if left_out else "",
            "the prediction head and the classifier are new" if headless else "the classifier is new",
        )  # fmt: skip
        if getattr(config, hf.CAUSAL, False):
            logger.warning(
                "%s was saved with the causal mask, but the classifier sees in both directions; for the causal mask set causal = True.",
                path,
            )
        return model.eval()

    def _draw_fresh(self, head: bool) -> dict[str, Tensor]:
        """Draw the weights of the classifier, and of the prediction head if asked for, as those of a new model."""
        fresh: dict[str, nn.Module] = {"classifier": self.classifier.to_empty(device="cpu")}
        if head:
            self.head = Head(self.config)
            self.head.apply(self._init_weights)
            fresh["head"] = self.head
        self._init_weights(self)
        return {
            f"{part}.{name}": w for part, module in fresh.items() for name, w in module.state_dict().items()
        }


class ModernBertForSequenceClassification(ModernBertClassifier):
    """One vector of logits for each document, from its first token or the mean of its tokens (`config.classifier_pooling`)."""

    architecture = "ModernBertForSequenceClassification"

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        document_lengths: Sequence[Sequence[int]] | None = None,
        output_hidden_states: bool | None = None,
        *,
        causal: bool | None = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput:
        """Classify the documents of a batch, N in all: row by row, from left to right.

        Without `document_ids` and `document_lengths` a row is a document, and N is B. The first token of a document is its first
        real one: transformers takes position 0 of a row, which is padding if that is on the left. Padding of packed rows must be
        masked, or it counts as a document.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), 0 = padding, anywhere; it is taken out.
            document_ids: (B, L) integers; a document is a maximal run of equal ids in a row.
            labels: (N,) or (N, C), see `clm_detour.model.classification_loss.document_loss`. If `config.problem_type` is None, the
                first labels that fit settle it for good, as in transformers.
            document_lengths: of each row, adding up to L; instead of ids and mask, so that the host need not wait for the device.
            output_hidden_states, causal, inputs_embeds, return_dict, others: see `ModernBertForPretraining.forward`.

        Returns:
            logits (N, C), the mean loss in fp32 if there are labels, and hidden states if asked for.

        Raises:
            UserError: shapes or lengths differ, a row is nothing but padding, labels do not fit, a causal model pools first
                tokens, a keyword asks for what this network does not do, or training with attention dropout.
        """
        if self._is_causal(causal) and self.config.classifier_pooling == CLS:
            raise UserError(
                "A causal model's first token sees only itself, so classifier_pooling 'cls' would ignore the text; use 'mean'."
            )
        each: list[Tensor] | None = [] if output_hidden_states else None
        hidden_TE, rows = self.encode(
            input_ids, attention_mask, document_ids, document_lengths, each, inputs_embeds, causal, **others
        )
        if document_ids is None and document_lengths is None:
            _check_rows(rows)
        logits_NC = self.classify(_pool(hidden_TE, rows.documents, self.config.classifier_pooling))
        loss = None
        if labels is not None:
            check_tensor("labels", labels)
            problem_type = self.config.problem_type or problem_type_of(labels, self.num_labels)
            loss = document_loss(logits_NC, labels, problem_type)
            self.config.problem_type = problem_type
        hidden_states = None if each is None else tuple(map(rows.put_back, each))
        output = SequenceClassifierOutput(loss=loss, logits=logits_NC, hidden_states=hidden_states)
        return self._as_asked(output, return_dict)

    @classmethod
    def from_encoder(
        cls: type[Classifier],
        path: str | os.PathLike[str],
        *,
        num_labels: int | None = None,
        id2label: Mapping[int, str] | None = None,
        problem_type: str | None = None,
        classifier_pooling: str | None = None,
        classifier_dropout: float | None = None,
        revision: str | None = None,
        attention_backend: str | None = None,
    ) -> Classifier:
        """As `ModernBertClassifier.from_encoder`, with two more choices.

        Args:
            path, num_labels, id2label, classifier_dropout, revision, attention_backend: see there.
            problem_type: one of `PROBLEM_TYPES`; None: the first labels settle it.
            classifier_pooling: 'cls' or 'mean'; None: as in the folder's config.

        Raises:
            UserError: see there.
        """
        changes = _label_keys(num_labels, id2label) | {"problem_type": problem_type}
        changes |= _given(classifier_dropout=classifier_dropout, classifier_pooling=classifier_pooling)
        return cls._from_encoder(path, changes, revision, attention_backend)


class ModernBertForTokenClassification(ModernBertClassifier):
    """Logits for each token."""

    architecture = "ModernBertForTokenClassification"

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        document_lengths: Sequence[Sequence[int]] | None = None,
        output_hidden_states: bool | None = None,
        *,
        causal: bool | None = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> TokenClassifierOutput:
        """Classify the tokens of a batch.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), 0 = padding, anywhere; it is taken out and its logits are zeros.
            document_ids: (B, L) integers; a document is a maximal run of equal ids in a row. None: a row is one document.
            labels: (B, L) integers, -100 where there is none; at padding they are not looked at.
            document_lengths: of each row, adding up to L; instead of ids and mask, so that the host need not wait for the device.
            output_hidden_states, causal, inputs_embeds, return_dict, others: see `ModernBertForPretraining.forward`.

        Returns:
            logits (B, L, C), if there are labels their mean cross-entropy in fp32 nats, and hidden states if asked for.

        Raises:
            UserError: shapes or lengths differ, labels do not fit, a keyword asks for what this network does not do, or training with
                attention dropout.
        """
        each: list[Tensor] | None = [] if output_hidden_states else None
        hidden_TE, rows = self.encode(
            input_ids, attention_mask, document_ids, document_lengths, each, inputs_embeds, causal, **others
        )
        logits_TC = self.classify(hidden_TE)
        loss = None
        if labels is not None:
            check_shape("labels", labels, rows.shape)
            loss = mean_cross_entropy(logits_TC, rows.take(labels))
        hidden_states = None if each is None else tuple(map(rows.put_back, each))
        logits = rows.put_back(logits_TC)
        output = TokenClassifierOutput(loss=loss, logits=logits, hidden_states=hidden_states)
        return self._as_asked(output, return_dict)


def _pool(hidden_TE: Tensor, documents: Documents, pooling: str) -> Tensor:
    """(T, E) -> (N, E): each document's first token, or the mean of its tokens, summed in fp32.

    `segment_reduce` adds in order, and so gives the same bytes every time; `index_add` does not promise that on a GPU.
    """
    if pooling == CLS:
        return hidden_TE.index_select(0, documents.cu_seqlens[:-1])
    lengths_N = documents.cu_seqlens.diff()
    mean_NE = torch.segment_reduce(hidden_TE.float(), MEAN, lengths=lengths_N, axis=0, unsafe=True)
    return mean_NE.to(hidden_TE.dtype)


def _check_rows(rows: Unpadded) -> None:
    """Where a row is a document, each has a token: else logits and rows would no longer correspond."""
    if len(rows.documents.lengths) != rows.shape[0]:
        count, length = rows.shape
        filled = set() if rows.kept is None else set((rows.kept // length).tolist())
        empty = min(set(range(count)) - filled)
        raise UserError(f"Row {empty} of the batch is nothing but padding, so it has no class; leave it out.")


def _number_of_labels(config: ModernBertConfig) -> int:
    """What a config says about classification is checked before the network is built."""
    numbers = sorted(config.id2label or {})
    if not numbers or numbers != list(range(len(numbers))):
        raise UserError(f"id2label numbers the labels {numbers}; number them 0, 1, 2, ...")
    if config.problem_type is not None:
        check_problem_type(config.problem_type)
    if config.classifier_pooling not in (CLS, MEAN):
        raise UserError(
            f"classifier_pooling {config.classifier_pooling!r} is not known; use {CLS!r} or {MEAN!r}."
        )
    if not 0 <= config.classifier_dropout <= 1:
        raise UserError(f"classifier_dropout is a probability, from 0 to 1, not {config.classifier_dropout}.")
    return len(numbers)


def _label_keys(num_labels: int | None, id2label: Mapping[int, str] | None) -> dict[str, Any]:
    """What a config says about labels; nothing is left of what it said before."""
    if id2label is None:
        if not isinstance(num_labels, Integral) or num_labels < 1:
            raise UserError(
                "How many labels are there? Give num_labels, at least 1, or their names as id2label."
            )
        id2label = {number: f"LABEL_{number}" for number in range(num_labels)}
    elif not isinstance(id2label, Mapping) or not all(str(number).isdecimal() for number in id2label):
        raise UserError(
            f"id2label names the labels by their numbers, as in {{0: 'no', 1: 'yes'}}, not {id2label}."
        )
    label2id = {name: number for number, name in id2label.items()}
    if len(label2id) != len(id2label) or num_labels not in (None, len(id2label)):
        raise UserError(
            f"id2label has {len(id2label)} entries and {len(label2id)} different names"
            + (f" but num_labels is {num_labels}" if num_labels else "")
            + "; the numbers must be equal."
        )
    return {
        "num_labels": len(id2label),
        "id2label": dict(id2label),
        "label2id": label2id,
        "problem_type": None,
    }


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}

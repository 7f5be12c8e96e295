"""Classification of documents and of tokens: pretrained body and prediction head, with a classifier on top.

The parameters are those of transformers' classes of the same names. `from_pretrained` opens a folder of the
same class, strictly. `from_encoder` starts fine-tuning: it takes body and head from any folder of a family,
usually a pretraining one, strictly too, leaves the old output layer out, and initializes a new classifier. A
`ModernBertModel` has no head, so its head is initialized as well.

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
from transformers import PreTrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput

from clm_detour.model import hf
from clm_detour.model.architecture import Architecture
from clm_detour.model.backbone import ModernBertPreTrainedModel
from clm_detour.model.classification_loss import (
    check_problem_type,
    document_loss,
    mean_cross_entropy,
    problem_type_of,
)
from clm_detour.model.documents import Documents, Unpadded
from clm_detour.model.families import architecture_of
from clm_detour.model.input_checks import check_shape, check_tensor
from clm_detour.model.named_weights import read_named
from clm_detour.model.weights import as_with_head, is_headless, modules_of
from clm_detour.utils.errors import UserError

OUTPUT_LAYERS = ("decoder.", "classifier.", "cls.", "lm_head.", "qa_outputs.")
CLS, MEAN = "cls", "mean"
Classifier = TypeVar("Classifier", bound="ModernBertClassifier")
logger = logging.getLogger(__name__)


class ModernBertClassifier(ModernBertPreTrainedModel):
    """The base class of both classifiers: dropout and a classifier over the prediction head.

    Args:
        config: Its `id2label` gives the number of labels; `classifier_dropout` acts before the classifier.
        attention_backend: See `ModernBertPreTrainedModel`.

    Raises:
        UserError: If the config asks for something that the network does not compute exactly.
    """

    def __init__(self, config: PreTrainedConfig, attention_backend: str | None = None):
        num_labels = _number_of_labels(config, architecture_of(config))
        super().__init__(config, attention_backend)
        self.num_labels = num_labels
        self.drop = nn.Dropout(self.architecture.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            self.init_output_layer(self.classifier)

    def init_output_layer(self, layer: nn.Linear) -> None:
        """Initialize the weights of a new output layer as transformers does; its bias is zero."""
        self._fill(layer, self.architecture.classifier_std)

    def classify(self, hidden: Tensor) -> Tensor:
        """Return logits (..., C) for states (..., E)."""
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
        """Load body and head of a folder or hub id, in fp32 and in evaluation mode, with a new classifier.

        New weights come from torch's global random number generator, and a warning in the log names them. The
        mask is bidirectional, even if the folder was saved with the causal one; another warning says so.

        Args:
            path: A masked-LM folder; or one of another classifier, whose labels and problem type are ignored;
                or a `ModernBertModel`, whose missing prediction head is initialized as for a new model.
            num_labels: C. Not needed with `id2label`.
            id2label: Names of the labels, by their numbers from 0. Without it they are LABEL_0, LABEL_1, ...
            classifier_dropout: Dropout before the classifier. None takes that of the folder's config.
            revision: Branch, tag or commit on the Hub.
            attention_backend: See `ModernBertPreTrainedModel`.

        Raises:
            UserError: If the labels are not given or do not fit together, there is no such model, its config
                asks for something that the network does not compute exactly, or weights of body or head are
                missing, of another shape or unknown.
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
        weights = read_named(folder, config, cls.kind, path)
        headless = is_headless(weights)
        taken = {name: w for name, w in as_with_head(weights).items() if not name.startswith(OUTPUT_LAYERS)}
        new_head = model._lacks_head(headless, taken)
        hf.fill(model, {**taken, **model._new_weights(new_head)}, str(path), torch.float32)
        with_head = model._has_head and not new_head
        left_out = "" if headless else modules_of(name for name in weights if name not in taken)
        logger.warning(
            "%s from %s: %s, %s%s and must be trained.", cls.__name__, path,
            "model and head are taken over" if with_head else "the model is taken over",
            f"{left_out} left out, " if left_out else "",
            "the prediction head and the classifier are new" if new_head else "the classifier is new",
        )  # fmt: skip
        if getattr(config, hf.CAUSAL, False):
            logger.warning(
                "%s was saved with the causal mask, but the classifier sees in both directions; for the "
                "causal mask set causal = True.",
                path,
            )
        return model.eval()

    def _lacks_head(self, headless: bool, weights: Mapping[str, Tensor]) -> bool:
        """Return whether a folder has no head of this class, such as the pooler of a masked BERT."""
        found = any(name.startswith("head.") for name in weights)
        return self._has_head and (headless or (not found and not self.architecture.one_head))

    def _new_weights(self, head: bool) -> dict[str, Tensor]:
        """Return weights of a new classifier, and of a new prediction head if `head` is set."""
        fresh: dict[str, nn.Module] = {"classifier": self.classifier.to_empty(device="cpu")}
        if head:
            fresh["head"] = self._renew_head()
        self._init_weights(self)
        return {
            f"{part}.{name}": w for part, module in fresh.items() for name, w in module.state_dict().items()
        }


class ModernBertForSequenceClassification(ModernBertClassifier):
    """A classifier of documents, by the first token or the mean of all (`config.classifier_pooling`)."""

    kind = "ForSequenceClassification"

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
        """Classify the N documents of a batch: row by row, from left to right.

        Without `document_ids` and `document_lengths` a row is a document, and N is B. The first token of a
        document is its first real one, while transformers takes position 0 of a row, which may be padding.
        Padding of packed rows must be masked, or it counts as a document. For arguments that are not listed
        see `ModernBertForPretraining.forward`.

        Args:
            labels: (N,) or (N, C), see `clm_detour.model.classification_loss.document_loss`. If
                `config.problem_type` is None, the first labels that fit set it, as in transformers.

        Returns:
            logits (N, C), the mean loss in fp32 if there are labels, and hidden states if asked for.

        Raises:
            UserError: If shapes or lengths differ, a row is only padding, labels do not fit, a causal model
                pools first tokens, a keyword asks for something that is not supported, or in training with
                attention dropout.
        """
        pooling = _pooling_of(self.config)
        if self._is_causal(causal) and pooling == CLS:
            raise UserError(
                "A causal model's first token sees only itself, so classifier_pooling 'cls' would ignore "
                "the text; use 'mean'."
            )
        each: list[Tensor] | None = [] if output_hidden_states else None
        hidden_TE, rows = self.encode(
            input_ids, attention_mask, document_ids, document_lengths, each, inputs_embeds, causal, **others
        )
        if document_ids is None and document_lengths is None:
            _check_rows(rows)
        logits_NC = self.classify(_pool(hidden_TE, rows.documents, pooling))
        loss = None
        if labels is not None:
            check_tensor("labels", labels)
            problem_type = self.config.problem_type or problem_type_of(labels, self.num_labels)
            loss = document_loss(logits_NC, labels, problem_type)
            self.config.problem_type = problem_type
        hidden_states = None if each is None else tuple(map(rows.put_back, each))
        output = SequenceClassifierOutput(loss=loss, logits=logits_NC, hidden_states=hidden_states)
        return self._returned(output, return_dict)

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
        """Load body and head as `ModernBertClassifier.from_encoder` does, with two more options.

        Args:
            path: Folder or hub id of a masked LM, of another classifier, or of a body alone.
            num_labels: C. Not needed with `id2label`.
            id2label: Names of the labels, by their numbers from 0.
            problem_type: One of `PROBLEM_TYPES`. None lets the first labels set it.
            classifier_pooling: 'cls' or 'mean'. None takes that of the folder's config.
            classifier_dropout: Dropout before the classifier. None takes that of the folder's config.
            revision: Branch, tag or commit on the Hub.
            attention_backend: See `ModernBertPreTrainedModel`.

        Raises:
            UserError: If the folder cannot be read, or its family is unknown.
        """
        changes = _label_keys(num_labels, id2label) | {"problem_type": problem_type}
        changes |= _given(classifier_dropout=classifier_dropout, classifier_pooling=classifier_pooling)
        return cls._from_encoder(path, changes, revision, attention_backend)


class ModernBertForTokenClassification(ModernBertClassifier):
    """A classifier of tokens."""

    kind = "ForTokenClassification"

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

        For arguments that are not listed see `ModernBertForPretraining.forward`. Logits of padding are zeros.

        Args:
            labels: (B, L) integers, -100 where there is none. Labels at padding are ignored.

        Returns:
            logits (B, L, C), if there are labels their mean cross-entropy in fp32 nats, and hidden states if
            asked for.

        Raises:
            UserError: If shapes or lengths differ, labels do not fit, a keyword asks for something that is
                not supported, or in training with attention dropout.
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
        return self._returned(output, return_dict)


def _pool(hidden_TE: Tensor, documents: Documents, pooling: str) -> Tensor:
    """Return the first token's state or the mean state of each document, summed in fp32: (T, E) -> (N, E).

    `segment_reduce` adds in order, and so gives the same bytes every time, which `index_add` does not promise
    on a GPU.
    """
    if pooling == CLS:
        return hidden_TE.index_select(0, documents.cu_seqlens[:-1])
    lengths_N = documents.cu_seqlens.diff()
    mean_NE = torch.segment_reduce(hidden_TE.float(), MEAN, lengths=lengths_N, axis=0, unsafe=True)
    return mean_NE.to(hidden_TE.dtype)


def _check_rows(rows: Unpadded) -> None:
    """Check, where each row is a document, that no row is only padding: else logits would not match rows."""
    if len(rows.documents.lengths) != rows.shape[0]:
        count, length = rows.shape
        filled = set() if rows.kept is None else set((rows.kept // length).tolist())
        empty = min(set(range(count)) - filled)
        raise UserError(f"Row {empty} of the batch is nothing but padding, so it has no class; leave it out.")


def _number_of_labels(config: Any, architecture: Architecture) -> int:
    """Check what a config says about classification, and return the number of labels."""
    numbers = sorted(config.id2label or {})
    if not numbers or numbers != list(range(len(numbers))):
        raise UserError(f"id2label numbers the labels {numbers}; number them 0, 1, 2, ...")
    if config.problem_type is not None:
        check_problem_type(config.problem_type)
    known = (CLS, MEAN) if architecture.one_head else (CLS,)
    if _pooling_of(config) not in known:
        raise UserError(
            f"classifier_pooling {_pooling_of(config)!r} is not known for this model; use "
            f"{' or '.join(map(repr, known))}."
        )
    if not 0 <= architecture.classifier_dropout <= 1:
        raise UserError(
            f"classifier_dropout is a probability, from 0 to 1, not {architecture.classifier_dropout}."
        )
    return len(numbers)


def _pooling_of(config: Any) -> str:
    """Return how a classifier of documents pools; only ModernBERT's config has a choice."""
    return getattr(config, "classifier_pooling", CLS)


def _label_keys(num_labels: int | None, id2label: Mapping[int, str] | None) -> dict[str, Any]:
    """Return the keys of a config that describe labels, and replace all that it said before."""
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

"""An encoder over packed documents: the parameters of a masked language model and a forward of our own.

Everything runs over the T real tokens of a batch laid end to end (see `documents`). The mask is one
attribute: under `causal` a token sees only itself and what is to its left, in every layer. Nothing is
rebuilt.

Shapes: B rows, L positions of a row, T tokens, E hidden size, V vocabulary, P predicted positions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from clm_detour.model import decoder, hf
from clm_detour.model.backbone import ModernBertPreTrainedModel
from clm_detour.model.documents import IGNORED, Unpadded, of_next_token
from clm_detour.model.input_checks import check_shape
from clm_detour.model.loss import predicted_places, summed_cross_entropy
from clm_detour.model.named_weights import read_named
from clm_detour.model.weights import BODY, DECODER, as_with_head
from clm_detour.utils.errors import UserError

logger = logging.getLogger(__name__)
BEYOND_TRANSFORMERS = ["last_hidden_state", "loss_sum", "predicted", "correct"]
FEWEST_LABELS = 32  # labels needed to decide whether they are the inputs


@dataclass
class PretrainingOutput(ModelOutput):
    """The output of a forward. As a tuple it holds those of loss, logits and hidden states that are present.

    Args:
        loss: Mean cross-entropy of the predicted positions, fp32, in nats. If there are none it is 0 in
            training, so that the step changes nothing, and NaN without gradients, where it would be taken for
            a measurement.
        logits: (B, L, V), if asked for.
        hidden_states: If asked for, (B, L, E) of the embeddings and of each layer, all before the final norm.
            transformers 4 returns the same; transformers 5 puts `last_hidden_state` in place of the last
            entry.
        last_hidden_state: (B, L, E), after the final norm.
        loss_sum: Sum of which `loss` is the mean.
        predicted: Number of predicted positions, int64.
        correct: Number of predicted positions at which the label has the highest logit; only without
            gradients.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    last_hidden_state: Tensor | None = None
    loss_sum: Tensor | None = None
    predicted: Tensor | None = None
    correct: Tensor | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        """Return those of loss, logits and hidden states that are present."""
        return tuple(value for name, value in self.items() if name not in BEYOND_TRANSFORMERS)


class ModernBertForPretraining(ModernBertPreTrainedModel):
    """An encoder of any family for masked or causal language modeling.

    For arguments, attributes and errors see `ModernBertPreTrainedModel`.
    """

    kind = "ForMaskedLM"
    accepts_loss_kwargs = True  # for transformers' Trainer, which passes num_items_in_batch
    _tied_weights_keys = {"decoder.weight": "model.embeddings.tok_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: PreTrainedConfig, attention_backend: str | None = None):
        super().__init__(config, attention_backend)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=self.architecture.decoder_bias)
        # For transformers' Trainer; not saved.
        self.config.keys_to_ignore_at_inference = list(BEYOND_TRANSFORMERS)
        self._labels_are_shifted = False
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        document_lengths: Sequence[Sequence[int]] | None = None,
        predicted: int | None = None,
        output_hidden_states: bool | None = None,
        return_logits: bool | None = None,
        *,
        causal: bool | None = None,
        shift: bool = False,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **others: Any,
    ) -> PretrainingOutput:
        """Run a batch of rows.

        Labels are aligned with the outputs: labels[t] is the token that position t must predict. The causal
        classes of transformers shift labels themselves. Here labels are shifted before (`next_token_labels`
        does it), or `shift` shifts them.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), 0 at padding, which may be anywhere; it is taken out, and the output is
                zero there. For other forms see `clm_detour.model.padding.real_tokens`.
            document_ids: (B, L) integers. A document is a maximal run of equal ids in a row. None means that
                a row is one document.
            labels: (B, L) int64, -100 where nothing is predicted. Labels at padding are ignored.
            document_lengths: Lengths of the documents of each row, adding up to L. A loader gives them in
                place of ids and mask, so that the host never waits for the device.
            predicted: Exact number of labels outside padding that are not -100, after the shift. None counts
                them, for which the host waits.
            output_hidden_states: Whether to return the embeddings and the output of each layer. None means
                no, whatever the config says.
            return_logits: Whether to return the logits of all positions. None returns them if there are no
                labels, or in evaluation mode without gradients.
            causal: Mask of this call. None uses the attribute.
            shift: Whether `labels` are those of the inputs, as the causal classes of transformers take them.
                Each position then predicts the token of the next one; the last of a document predicts
                nothing. Only under the causal mask.
            inputs_embeds: (B, L, E) in place of `input_ids`: token embeddings before their norm.
            return_dict: False returns a tuple. None returns no tuple, whatever the config says.
            num_items_in_batch: Number of labels that are not -100 in the whole step, to which this batch
                belongs, as transformers' Trainer gives it. The loss is then the batch's share of the step's
                loss, counted by its labels before any shift; 0 if there are none.
            others: `position_ids` and `token_type_ids`, which must agree with what the network computes
                anyway, `row_numbers` for dropout, and further keywords of transformers, none of which may ask
                for anything; see `encode`.

        Raises:
            UserError: If shapes or lengths differ, `shift` is given without labels, `predicted` is wrong
                (checked on a CPU only), labels under the causal mask are the inputs themselves (checked once,
                unless `predicted` is given), a keyword asks for something that is not supported, or in
                training with attention dropout.
        """
        if shift and labels is None:
            raise UserError(
                "shift=True shifts labels, but there are none. transformers' Trainer takes them out where "
                "label_smoothing_factor is set, and would compare the logits with unshifted ones; leave it "
                "at 0."
            )
        each: list[Tensor] | None = [] if output_hidden_states else None
        hidden_TE, rows = self.encode(
            input_ids, attention_mask, document_ids, document_lengths, each, inputs_embeds, causal, **others
        )
        found: dict[str, Any] = {}
        if labels is not None:
            labels_T = self._labels(labels, rows, input_ids, self._is_causal(causal), shift, predicted)
            found = self._loss(hidden_TE, labels_T, predicted)
            if num_items_in_batch is not None:
                of_step = torch.as_tensor(num_items_in_batch).clamp_min(1)
                found["loss"] = found["loss"] * ((labels != IGNORED).sum() / of_step)
        if return_logits is None:
            return_logits = labels is None or not (self.training or torch.is_grad_enabled())
        if return_logits:
            found["logits"] = rows.put_back(self.decoder(self.head(hidden_TE)))
        if each is not None:
            found["hidden_states"] = tuple(map(rows.put_back, each))
        output = PretrainingOutput(last_hidden_state=rows.put_back(hidden_TE), **found)
        return self._returned(output, return_dict)

    def _labels(
        self,
        labels: Tensor,
        rows: Unpadded,
        input_ids: Tensor | None,
        causal: bool,
        shift: bool,
        predicted: int | None,
    ) -> Tensor:
        """Return what each token predicts, (T,)."""
        check_shape("labels", labels, rows.shape)
        if shift and not causal:
            raise UserError(
                "shift is for the causal mask, but this model sees in both directions, also what it would "
                "predict; set causal = True."
            )
        labels_T = rows.take(labels)
        if shift:
            return of_next_token(labels_T, rows.documents)
        if causal and predicted is None and input_ids is not None:
            self._refuse_inputs_as_labels(rows.take(input_ids), labels_T)
        return labels_T

    def _refuse_inputs_as_labels(self, ids_T: Tensor, labels_T: Tensor) -> None:
        """Refuse labels that are the inputs, with which a model learns to copy.

        One batch with shifted labels ends the check.
        """
        if self._labels_are_shifted or labels_T.is_meta or torch.compiler.is_compiling():
            return
        known_T = labels_T != IGNORED
        labels_P = labels_T[known_T]
        if len(labels_P) < FEWEST_LABELS or (labels_P == labels_P[0]).all():
            return  # too few to decide
        if torch.equal(labels_P, ids_T[known_T].to(labels_P.dtype)):
            raise UserError(
                "The labels are the inputs themselves, which a causal model would learn to copy; pass "
                "shift=True, or labels made by next_token_labels."
            )
        self._labels_are_shifted = True

    def _loss(self, hidden_TE: Tensor, labels_T: Tensor, predicted: int | None) -> dict[str, Any]:
        """Return the parts of the output that depend on the labels."""
        if hasattr(self.decoder, "base_layer"):
            raise UserError(
                "An adapter lies on the decoder, which the loss would not see; leave it out of the "
                "adapter's target_modules."
            )
        places_P = predicted_places(labels_T, predicted)
        loss_sum, correct = summed_cross_entropy(
            self.head(hidden_TE.index_select(0, places_P)),
            self.decoder.weight,
            self.decoder.bias,
            labels_T[places_P],
        )
        return {
            "loss": loss_sum / (max(len(places_P), 1) if torch.is_grad_enabled() else len(places_P)),
            "loss_sum": loss_sum,
            "predicted": labels_T.new_full((), len(places_P)),
            "correct": correct,
        }

    @classmethod
    def from_encoder(
        cls,
        path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        attention_backend: str | None = None,
    ) -> ModernBertForPretraining:
        """Load the body of a folder or hub id with a new prediction head, in fp32 and in evaluation mode.

        New weights come from torch's global random number generator, and a warning in the log names them. The
        mask is bidirectional.

        Args:
            path: A folder of a body alone or of a classifier, whose head is left out.
            revision: Branch, tag or commit on the Hub.
            attention_backend: See `ModernBertPreTrainedModel`.

        Raises:
            UserError: If there is no such model, its config asks for something that the network does not
                compute exactly, or weights of the body are missing, of another shape or unknown.
        """
        folder = hf.fetch(path, revision)
        config = hf.read_config(folder)
        model = hf.without_weights(cls, config, attention_backend)
        named = as_with_head(read_named(folder, config, cls.kind, path))
        body = {name: weight for name, weight in named.items() if name.startswith(BODY)}
        hf.fill(model, {**body, **model._new_head()}, str(path), torch.float32)
        logger.warning(
            "%s from %s: the body is taken over, the prediction head is new and must be trained.",
            cls.__name__,
            path,
        )
        return model.eval()

    def _new_head(self) -> dict[str, Tensor]:
        """Return the weights of a new prediction head and of what is new in the vocabulary's projection."""
        fresh = {f"head.{name}": weight for name, weight in self._renew_head().state_dict().items()}
        decoder = self.decoder.to_empty(device="cpu")
        self._fill(decoder, self.architecture.out_std)
        named = {f"decoder.{name}": weight for name, weight in decoder.state_dict().items()}
        if self.architecture.tied:
            named.pop(DECODER)
        return {**fresh, **named}

    def get_output_embeddings(self) -> nn.Module:
        """Return the projection to the vocabulary."""
        return self.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the projection to the vocabulary."""
        self.decoder = new_embeddings

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            self._fill(self.decoder, self.architecture.out_std)

    def to_decoder(self) -> PreTrainedModel:
        """Return transformers' causal class with the same logits; see `model.decoder.to_decoder`."""
        return decoder.to_decoder(self)

    @classmethod
    def from_decoder(
        cls, model: PreTrainedModel, attention_backend: str | None = None
    ) -> ModernBertForPretraining:
        """Return a model with the weights of transformers' causal class; see `model.decoder.from_decoder`."""
        return decoder.from_decoder(cls, model, attention_backend)

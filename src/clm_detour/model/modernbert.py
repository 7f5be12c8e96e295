"""ModernBERT over packed documents: parameters as in transformers' `ModernBertForMaskedLM`, a forward of our own.

Everything runs over the T real tokens of a batch laid end to end (see `documents`). The mask is one attribute: with
`causal` a token sees only what is left of it, in every layer; nothing is rebuilt.

Shapes: B rows, L positions of a row, T tokens, E hidden size, V vocabulary, P predicted positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import ModernBertConfig, PreTrainedModel
from transformers.utils import ModelOutput

from clm_detour.model import decoder
from clm_detour.model.backbone import ModernBertPreTrainedModel
from clm_detour.model.checks import check_shape
from clm_detour.model.loss import predicted_places, summed_cross_entropy


@dataclass
class PretrainingOutput(ModelOutput):
    """What a forward gives.

    Args:
        loss: mean cross-entropy of the predicted positions, fp32 nats; 0 if there are none.
        loss_sum: its sum.
        predicted: number of predicted positions, int64.
        correct: at how many of them the label has the highest logit; only where gradients are off.
        logits: (B, L, V), if asked for.
        last_hidden_state: (B, L, E), after the final norm.
        hidden_states: if asked for, (B, L, E) of the embeddings and of each layer, all before the final norm.
            transformers 4 gives the same; transformers 5 puts `last_hidden_state` in place of the last entry.
    """

    loss: Tensor | None = None
    loss_sum: Tensor | None = None
    predicted: Tensor | None = None
    correct: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class ModernBertForPretraining(ModernBertPreTrainedModel):
    """ModernBERT that is trained by masked or by causal language modelling.

    Args, attributes and errors: see `ModernBertPreTrainedModel`.
    """

    architecture = "ModernBertForMaskedLM"
    _tied_weights_keys = {"decoder.weight": "model.embeddings.tok_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: ModernBertConfig, attention_backend: str | None = None):
        super().__init__(config, attention_backend)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=config.decoder_bias)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        document_lengths: Sequence[Sequence[int]] | None = None,
        predicted: int | None = None,
        output_hidden_states: bool = False,
        return_logits: bool | None = None,
    ) -> PretrainingOutput:
        """Run a batch of rows.

        `labels` are aligned with the outputs: labels[t] is the token that position t must predict. transformers'
        causal classes shift labels themselves; here they come shifted (`next_token_labels` makes them).

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), 0 = padding, anywhere; it is taken out and comes back as zeros.
            document_ids: (B, L) integers; a document is a maximal run of equal ids in a row. None: a row is one document.
            labels: (B, L) int64, -100 where nothing is predicted; at padding they are not looked at.
            document_lengths: of each row, adding up to L; what a loader gives instead of ids and mask, so that the host never
                waits for the device.
            predicted: how many labels outside padding are not -100, exactly; None: counted, for which the host waits.
            output_hidden_states: give the embeddings and each layer's output too.
            return_logits: give the logits of all positions; None: if there are no labels.

        Raises:
            UserError: shapes or lengths differ, `predicted` is wrong (seen on a CPU), or training with attention dropout.
        """
        each: list[Tensor] | None = [] if output_hidden_states else None
        hidden_TE, rows = self.encode(input_ids, attention_mask, document_ids, document_lengths, each)
        output = PretrainingOutput(last_hidden_state=rows.put_back(hidden_TE))
        if labels is not None:
            check_shape("labels", labels, rows.shape)
            self._add_loss(output, hidden_TE, rows.take(labels), predicted)
        if labels is None if return_logits is None else return_logits:
            output.logits = rows.put_back(self.decoder(self.head(hidden_TE)))
        if each is not None:
            output.hidden_states = tuple(rows.put_back(hidden) for hidden in each)
        return output

    def _add_loss(
        self, output: PretrainingOutput, hidden_TE: Tensor, labels_T: Tensor, predicted: int | None
    ) -> None:
        places_P = predicted_places(labels_T, predicted)
        output.loss_sum, output.correct = summed_cross_entropy(
            self.head(hidden_TE.index_select(0, places_P)),
            self.decoder.weight,
            self.decoder.bias,
            labels_T[places_P],
        )
        output.predicted = labels_T.new_full((), len(places_P))
        output.loss = output.loss_sum / max(len(places_P), 1)

    def get_output_embeddings(self) -> nn.Module:
        """The projection to the vocabulary."""
        return self.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the projection to the vocabulary."""
        self.decoder = new_embeddings

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            self._fill(self.decoder, self._out_std)

    def to_decoder(self) -> PreTrainedModel:
        """transformers' causal class with the same logits; see `clm_detour.model.decoder.to_decoder`."""
        return decoder.to_decoder(self)

    @classmethod
    def from_decoder(
        cls, model: PreTrainedModel, attention_backend: str | None = None
    ) -> ModernBertForPretraining:
        """Take the weights of transformers' causal class; see `clm_detour.model.decoder.from_decoder`."""
        return decoder.from_decoder(cls, model, attention_backend)

"""A network without a head: hidden states for a probe, a retriever or a new head.

Shapes: B rows, L positions of a row, T tokens, E hidden size.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from clm_detour.model.backbone import ModernBertPreTrainedModel
from clm_detour.model.weights import BODY, as_with_head, modules_of

logger = logging.getLogger(__name__)


class ModernBertModel(ModernBertPreTrainedModel):
    """The network up to its final norm.

    It saves folders of transformers' `ModernBertModel`. It opens such a folder, and also one of a class with
    a head, from which it takes the body as `AutoModel` does; a warning in the log names what is left out. In
    memory the weights are named `model.*`, as in the classes with a head; in its folders they are named
    without that prefix.

    For arguments, attributes and errors see `ModernBertPreTrainedModel`.
    """

    kind = "Model"

    def __init__(self, config: PreTrainedConfig, attention_backend: str | None = None):
        super().__init__(config, attention_backend)
        del self.head
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        document_lengths: Sequence[Sequence[int]] | None = None,
        output_hidden_states: bool | None = None,
        *,
        causal: bool | None = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> BaseModelOutput:
        """Compute the hidden states of a batch of rows.

        For the arguments see `ModernBertForPretraining.forward`. States of padding are zeros.

        Returns:
            `last_hidden_state` (B, L, E), after the final norm; and, if asked for, `hidden_states`, (B, L, E)
            of the embeddings and of each layer, all before the final norm. transformers 4 returns the same;
            transformers 5 puts `last_hidden_state` in place of the last entry.

        Raises:
            UserError: If shapes or lengths differ, a keyword asks for something that is not supported, or in
                training with attention dropout.
        """
        each: list[Tensor] | None = [] if output_hidden_states else None
        hidden_TE, rows = self.encode(
            input_ids, attention_mask, document_ids, document_lengths, each, inputs_embeds, causal, **others
        )
        hidden_states = None if each is None else tuple(map(rows.put_back, each))
        output = BaseModelOutput(last_hidden_state=rows.put_back(hidden_TE), hidden_states=hidden_states)
        return self._returned(output, return_dict)

    @classmethod
    def _from_folder(
        cls, weights: Mapping[str, Tensor], path: str | os.PathLike[str]
    ) -> Mapping[str, Tensor]:
        weights = as_with_head(weights)
        body = {name: weight for name, weight in weights.items() if name.startswith(BODY)}
        left_out = modules_of(name for name in weights if name not in body)
        if body and left_out:
            logger.warning("%s from %s: the model is taken over, %s left out.", cls.__name__, path, left_out)
        return body or weights

"""ModernBERT over packed documents: parameters as in transformers' `ModernBertForMaskedLM`, a forward of our own.

Everything runs over the T real tokens of a batch laid end to end (see `documents`). The mask is one attribute: with
`causal` a token sees only what is left of it, in every layer; nothing is rebuilt.

Shapes: B rows, L positions of a row, T tokens, E hidden size, H heads, D size of a head, V vocabulary, P predicted positions.
"""

from __future__ import annotations

import copy
import math
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import ModernBertConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.utils import ModelOutput

from clm_detour.errors import UserError
from clm_detour.model import decoder, hf
from clm_detour.model.attention import Choice, attention, choose_backend
from clm_detour.model.documents import IGNORED, Documents, unpad
from clm_detour.model.layout import Layout, layout_of
from clm_detour.model.loss import summed_cross_entropy
from clm_detour.model.rope import Rotation, rotate, rotation


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


def _norm(config: ModernBertConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)


class Embeddings(nn.Module):
    """Token embeddings, normalised."""

    def __init__(self, config: ModernBertConfig):
        super().__init__()
        self.tok_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.norm = _norm(config)
        self.drop = nn.Dropout(config.embedding_dropout)

    def forward(self, ids_T: Tensor) -> Tensor:
        """(T,) -> (T, E)."""
        return self.drop(self.norm(self.tok_embeddings(ids_T)))


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: ModernBertConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.Wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.attention_bias)
        self.Wo = nn.Linear(config.hidden_size, config.hidden_size, bias=config.attention_bias)

    def forward(self, hidden_TE: Tensor, view: View) -> Tensor:
        """(T, E) -> (T, E)."""
        qkv_T3HD = self.Wqkv(hidden_TE).unflatten(-1, (3, self.heads, -1))
        q_THD, k_THD, v_THD = rotate(qkv_T3HD, view.rotation)
        out_THD = attention(q_THD, k_THD, v_THD, view.documents, view.causal, view.window, view.backend)
        return self.Wo(out_THD.flatten(1))


class MLP(nn.Module):
    """Gated linear unit."""

    def __init__(self, config: ModernBertConfig):
        super().__init__()
        self.Wi = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.mlp_bias)
        self.act = ACT2FN[config.hidden_activation]
        self.drop = nn.Dropout(config.mlp_dropout)
        self.Wo = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, hidden_TE: Tensor) -> Tensor:
        """(T, E) -> (T, E)."""
        inputs, gate = self.Wi(hidden_TE).chunk(2, dim=-1)
        return self.Wo(self.drop(self.act(inputs) * gate))


@dataclass(frozen=True)
class View:
    """What the layers of one kind see: the same for all of them in one forward."""

    documents: Documents
    causal: bool
    window: int | None
    rotation: Rotation
    backend: str


class Layer(nn.Module):
    """Attention and MLP, each with its norm in front and a residual around it."""

    def __init__(self, config: ModernBertConfig, number: int):
        super().__init__()
        self.attn_norm = _norm(config) if number else nn.Identity()  # the embeddings are normalised already
        self.attn = Attention(config)
        self.mlp_norm = _norm(config)
        self.mlp = MLP(config)

    def forward(self, hidden_TE: Tensor, view: View) -> Tensor:
        """(T, E) -> (T, E)."""
        hidden_TE = hidden_TE + self.attn(self.attn_norm(hidden_TE), view)
        return hidden_TE + self.mlp(self.mlp_norm(hidden_TE))


class Body(nn.Module):
    """The network without its prediction head."""

    def __init__(self, config: ModernBertConfig, layout: Layout):
        super().__init__()
        self.layout = layout
        self.heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(layout.layers))
        self.final_norm = _norm(config)
        self.gradient_checkpointing = False  # switched by PreTrainedModel.gradient_checkpointing_enable

    def forward(
        self,
        ids_T: Tensor,
        documents: Documents,
        causal: bool,
        backend: str,
        each: list[Tensor] | None = None,
    ) -> Tensor:
        """(T,) -> (T, E) after the final norm.

        Args:
            each: a list to which the embeddings and each layer's output are appended.
        """
        if self.training and self.attention_dropout:
            raise UserError(
                f"attention_dropout is {self.attention_dropout}; training is possible only with 0."
            )
        views = {local: self._view(local, documents, causal, backend) for local in (False, True)}
        hidden_TE = self.embeddings(ids_T)
        outputs = [hidden_TE]
        for number, layer in enumerate(self.layers):
            view = views[self.layout.is_local(number)]
            if self.gradient_checkpointing and self.training:
                hidden_TE = checkpoint(layer, hidden_TE, view, use_reentrant=False)
            else:
                hidden_TE = layer(hidden_TE, view)
            if each is not None:
                outputs.append(hidden_TE)
        if each is not None:
            each.extend(outputs)
        return self.final_norm(hidden_TE)

    def _view(self, local: bool, documents: Documents, causal: bool, backend: str) -> View:
        theta = self.layout.local_theta if local else self.layout.global_theta
        angles = rotation(documents.positions, self.heads, self.head_dim, theta)
        return View(documents, causal, self.layout.window if local else None, angles, backend)


class Head(nn.Module):
    """What stands between the body and the vocabulary."""

    def __init__(self, config: ModernBertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.classifier_bias)
        self.act = ACT2FN[config.classifier_activation]
        self.norm = _norm(config)

    def forward(self, hidden_TE: Tensor) -> Tensor:
        """(T, E) -> (T, E)."""
        return self.norm(self.act(self.dense(hidden_TE)))


class ModernBertForPretraining(PreTrainedModel):
    """ModernBERT that is trained by masked or by causal language modelling.

    Args:
        config: of any ModernBERT; copied.
        attention_backend: a name of `clm_detour.model.attention.BACKENDS`, or None for the best one here. What was chosen, and
            why, is in `attention_choice`.

    Attributes:
        causal: a token sees only itself and what is left of it. Switch it at any time.

    Raises:
        UserError: the config asks for something that the network does not do exactly.
    """

    config_class = ModernBertConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Embeddings", "Layer"]  # noqa: RUF012
    _tied_weights_keys = {"decoder.weight": "model.embeddings.tok_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: ModernBertConfig, attention_backend: str | None = None):
        layout = layout_of(config)
        config = copy.deepcopy(config)
        config._attn_implementation = "eager"  # transformers checks its own kernels; ours are chosen below
        super().__init__(config)
        self.causal = False
        self.attention_choice: Choice = choose_backend(attention_backend)
        self.model = Body(config, layout)
        self.head = Head(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=config.decoder_bias)
        self.post_init()

    @property
    def attention_backend(self) -> str:
        """Name of the attention back end."""
        return self.attention_choice.name

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
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
            labels: (B, L) int64, -100 where nothing is predicted.
            output_hidden_states: give the embeddings and each layer's output too.
            return_logits: give the logits of all positions; None: if there are no labels.

        Raises:
            UserError: shapes differ, or training with attention dropout.
        """
        if input_ids.dim() != 2:
            raise UserError(f"input_ids has shape {tuple(input_ids.shape)}; it must be (rows, positions).")
        shape = (input_ids.shape[0], input_ids.shape[1])
        rows = unpad(shape, input_ids.device, attention_mask, document_ids)
        each: list[Tensor] | None = [] if output_hidden_states else None
        hidden_TE = self.model(
            rows.take(input_ids), rows.documents, self.causal, self.attention_backend, each
        )
        output = PretrainingOutput(last_hidden_state=rows.put_back(hidden_TE))
        if labels is not None:
            self._add_loss(output, hidden_TE, rows.take(labels))
        if labels is None if return_logits is None else return_logits:
            output.logits = rows.put_back(self.decoder(self.head(hidden_TE)))
        if each is not None:
            output.hidden_states = tuple(rows.put_back(hidden) for hidden in each)
        return output

    def _add_loss(self, output: PretrainingOutput, hidden_TE: Tensor, labels_T: Tensor) -> None:
        places_P = (labels_T != IGNORED).nonzero().squeeze(1)
        output.loss_sum, output.correct = summed_cross_entropy(
            self.head(hidden_TE.index_select(0, places_P)),
            self.decoder.weight,
            self.decoder.bias,
            labels_T[places_P],
        )
        output.predicted = torch.tensor(len(places_P), device=labels_T.device)
        output.loss = output.loss_sum / max(len(places_P), 1)

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings."""
        return self.model.embeddings.tok_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.model.embeddings.tok_embeddings = value

    def get_output_embeddings(self) -> nn.Module:
        """The projection to the vocabulary."""
        return self.decoder

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the projection to the vocabulary."""
        self.decoder = new_embeddings

    def init_weights(self) -> None:
        """Fill fresh weights and tie the decoder; called by `post_init`.

        transformers 5 takes a module without parameters of its own for initialised if its class is not one of transformers'.
        """
        if self.decoder.weight.device.type != "meta":
            self.apply(self._init_weights)
        self.tie_weights()

    def _init_weights(self, module: nn.Module) -> None:
        """ModernBERT's initialisation: truncated normals; projections back to the residual stream are smaller."""
        narrow = self.config.initializer_range
        out = narrow / math.sqrt(2.0 * self.config.num_hidden_layers)
        if isinstance(module, Embeddings):
            self._fill(module.tok_embeddings, narrow)
        elif isinstance(module, MLP):
            self._fill(module.Wi, narrow)
            self._fill(module.Wo, out)
        elif isinstance(module, Attention):
            self._fill(module.Wqkv, narrow)
            self._fill(module.Wo, out)
        elif isinstance(module, Head):
            self._fill(module.dense, out)
        elif isinstance(module, ModernBertForPretraining):
            self._fill(module.decoder, out)

    def _fill(self, module: nn.Linear | nn.Embedding, std: float) -> None:
        cutoff = std * (self.config.initializer_cutoff_factor or 3)
        nn.init.trunc_normal_(module.weight, 0.0, std, -cutoff, cutoff)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, path: str | os.PathLike[str], **options: Any
    ) -> ModernBertForPretraining:
        """Load a folder or hub id, strictly; see `clm_detour.model.hf.load`."""
        return hf.load(cls, path, **options)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:  # type: ignore[override]
        """Write a folder that `AutoModelForMaskedLM` of any version opens; see `clm_detour.model.hf.save`."""
        hf.save(self, folder)

    def to_decoder(self) -> PreTrainedModel:
        """transformers' causal class with the same logits; see `clm_detour.model.decoder.to_decoder`."""
        return decoder.to_decoder(self)

    @classmethod
    def from_decoder(cls, model: PreTrainedModel) -> ModernBertForPretraining:
        """Take the weights of transformers' causal class; see `clm_detour.model.decoder.from_decoder`."""
        return decoder.from_decoder(cls, model)

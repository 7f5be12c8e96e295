"""The modules of the network, over T tokens laid end to end. Parameters are named as in ModernBERT.

Shapes: T tokens, E hidden size, H heads, D size of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN

from clm_detour.model.architecture import Architecture, HeadParts
from clm_detour.model.attention import attention, varlen
from clm_detour.model.attention.varlen import Operator
from clm_detour.model.compiling import compiled
from clm_detour.model.documents import Documents
from clm_detour.model.dropout import OutputDropout, dropped, layer_keys
from clm_detour.model.gpu import rotary
from clm_detour.model.kernels import window_sides
from clm_detour.model.precision import product_dtype
from clm_detour.model.rope import Rotation, rotate, rotation
from clm_detour.utils.errors import UserError


@dataclass(frozen=True)
class View:
    """The view of the layers of one kind, global or local, in one forward."""

    documents: Documents
    causal: bool
    window: int | None
    rotation: Rotation | None
    backend: str
    dropout: float = 0.0  # rate of the dropout after the output projection


def norm(architecture: Architecture) -> nn.LayerNorm:
    """Return a layer norm of the network."""
    return nn.LayerNorm(architecture.hidden, eps=architecture.norm_eps, bias=architecture.norm_bias)


class Embeddings(nn.Module):
    """Token embeddings with a norm. Learned positions and the first token type are added if there are any."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        hidden, positions = architecture.hidden, architecture.positions
        self.tok_embeddings = nn.Embedding(architecture.vocabulary, hidden, padding_idx=architecture.padding)
        self.first = 0 if positions is None else positions.first
        self.position_embeddings = None if positions is None else nn.Embedding(positions.rows, hidden)
        types = architecture.token_types
        self.token_type_embeddings = nn.Embedding(types, hidden) if types else None
        self.norm = norm(architecture)
        self.drop = nn.Dropout(architecture.embedding_dropout)

    def forward(self, inputs_T: Tensor, documents: Documents) -> Tensor:
        """Return (T, E) for ids (T,), or for embeddings (T, E) that are given in place of ids."""
        embedded_TE = inputs_T if inputs_T.is_floating_point() else self.tok_embeddings(inputs_T)
        if (table := self._added()) is not None:
            embedded_TE = embedded_TE + F.embedding(documents.positions + self.first, table)
        return self.drop(self.norm(embedded_TE))

    def _added(self) -> Tensor | None:
        """Return the table of positions with the first token type added to each, None if there is none.

        The sum is over the rows of the table, of which there are fewer than tokens.
        """
        if self.position_embeddings is None:
            return None
        table = self.position_embeddings.weight
        return table if self.token_type_embeddings is None else table + self.token_type_embeddings.weight[0]


class Attention(nn.Module):
    """The projections around multi-head self-attention."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        hidden, bias = architecture.hidden, architecture.attention_bias
        self.heads = architecture.heads
        self.Wqkv = nn.Linear(hidden, 3 * hidden, bias=bias)
        self.Wo = nn.Linear(hidden, hidden, bias=bias)


class MLP(nn.Module):
    """Two projections with an activation between them, which may be gated."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        hidden, inner, bias = architecture.hidden, architecture.inner, architecture.mlp_bias
        self.gated = architecture.gated
        self.Wi = nn.Linear(hidden, 2 * inner if self.gated else inner, bias=bias)
        self.act = ACT2FN[architecture.activation]
        self.drop = nn.Dropout(architecture.mlp_dropout)
        self.Wo = nn.Linear(inner, hidden, bias=bias)

    def forward(self, hidden_TE: Tensor) -> Tensor:
        """Return (T, E) for (T, E)."""
        if not self.gated:
            return self.Wo(self.drop(self.act(self.Wi(hidden_TE))))
        inputs, gate = self.Wi(hidden_TE).chunk(2, dim=-1)
        return self.Wo(self.drop(self.act(inputs) * gate))


class Layer(nn.Module):
    """Attention and MLP with a residual around each, and a norm before each or after each sum.

    `torch.compile` compiles a layer whole where attention is an operator that a graph can contain. Elsewhere
    it compiles the parts before and after attention, which are functions of tensors alone.
    """

    def __init__(self, architecture: Architecture, number: int):
        super().__init__()
        self.pre_norm = architecture.pre_norm
        # The embeddings are already normalized.
        self.attn_norm = norm(architecture) if number or not self.pre_norm else nn.Identity()
        self.attn = Attention(architecture)
        self.mlp_norm = norm(architecture)
        self.mlp = MLP(architecture)
        self.compiled = False

    def forward(self, hidden_TE: Tensor, view: View, keys_T: Tensor | None = None) -> Tensor:
        """Return (T, E) for (T, E).

        Args:
            keys_T: Random numbers of the tokens in this layer, for the dropout of `view`. None drops nothing.

        Raises:
            UserError: If the layer is compiled, and batches had more shapes than torch compiles.
        """
        if self.compiled:
            return compiled_layer(self, hidden_TE, view, keys_T)
        q_THD, k_THD, v_THD = self.before(hidden_TE, view.rotation)
        out_THD = attention(q_THD, k_THD, v_THD, view.documents, view.causal, view.window, view.backend)
        return self.after(hidden_TE, out_THD, keys_T, view.dropout)

    def project(self, hidden_TE: Tensor) -> Tensor:
        """Return queries, keys and values, (T, 3, H, D), for (T, E)."""
        qkv_T3E = self.attn.Wqkv(self.attn_norm(hidden_TE) if self.pre_norm else hidden_TE)
        return qkv_T3E.unflatten(-1, (3, self.attn.heads, -1))

    def before(self, hidden_TE: Tensor, by: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (T, H, D) each, for (T, E), rotated if positions are rotary."""
        return rotate(self.project(hidden_TE), by)

    def whole(
        self,
        hidden_TE: Tensor,
        by: Rotation | None,
        run: Operator,
        cu_seqlens: Tensor,
        longest: int,
        sides: tuple[int | None, int | None],
        keys_T: Tensor | None,
        dropout: float,
    ) -> Tensor:
        """Compute the layer as a function of tensors alone, with attention as an operator."""
        q_THD, k_THD, v_THD = self.before(hidden_TE, by)
        out_THD = run(q_THD, k_THD, v_THD, cu_seqlens, cu_seqlens, longest, longest, window_size=sides)
        return self.after(hidden_TE, out_THD, keys_T, dropout)

    def after(
        self, hidden_TE: Tensor, out_THD: Tensor, keys_T: Tensor | None = None, dropout: float = 0.0
    ) -> Tensor:
        """Return (T, E) for the layer's input, (T, E), and the output of attention, (T, H, D)."""
        update_TE = self.attn.Wo(out_THD.flatten(1))
        if keys_T is not None:
            update_TE = dropped(update_TE, keys_T, dropout)
        hidden_TE = add(hidden_TE, update_TE)
        if not self.pre_norm:
            hidden_TE = normed(self.attn_norm, hidden_TE)
            return normed(self.mlp_norm, add(hidden_TE, self.mlp(hidden_TE)))
        return add(hidden_TE, self.mlp(self.mlp_norm(hidden_TE)))


def add(hidden_TE: Tensor, update_TE: Tensor) -> Tensor:
    """Add the output of a block, which under autocast is in half precision, to the residual stream.

    The cast is explicit, because torch.compile merges a product and a sum that follow each other into one
    operation of one precision, and then stops with an error (pytorch issues 164455 and 165718).
    """
    return hidden_TE + update_TE.to(hidden_TE.dtype)


def normed(by: nn.Module, hidden_TE: Tensor) -> Tensor:
    """Return the residual stream after a norm, which autocast computes in fp32, in its own precision."""
    return by(hidden_TE).to(hidden_TE.dtype)


def compiled_layer(layer: Layer, hidden_TE: Tensor, view: View, keys_T: Tensor | None) -> Tensor:
    """Compute `layer(hidden_TE, view, keys_T)` by compiled code, which all layers share.

    Raises:
        UserError: If batches had more shapes than torch compiles, or attention cannot run on these tensors.
    """
    documents, queries = view.documents, like_queries(layer, hidden_TE)
    if view.backend == varlen.NAME and documents.tokens:
        run, sides = varlen.operator_for(queries), window_sides(view.causal, view.window)
        dropout = keys_T, view.dropout
        return compiled(Layer.whole)(layer, hidden_TE, view.rotation, run, *documents.padded, sides, *dropout)
    if view.rotation is None or rotary.takes(queries):
        # a graph would return queries, keys and values as views, whose gradients torch would add up apart
        q_THD, k_THD, v_THD = rotate(compiled(Layer.project)(layer, hidden_TE), view.rotation)
    else:
        q_THD, k_THD, v_THD = compiled(Layer.before)(layer, hidden_TE, view.rotation)
    out_THD = attention(q_THD, k_THD, v_THD, documents, view.causal, view.window, view.backend)
    return compiled(Layer.after)(layer, hidden_TE, out_THD, keys_T, view.dropout)


def like_queries(layer: Layer, hidden_TE: Tensor) -> Tensor:
    """Return no queries, (0, H, D), of the device and type of this layer's queries."""
    shape = 0, layer.attn.heads, hidden_TE.shape[-1] // layer.attn.heads
    return hidden_TE.new_empty(shape, dtype=product_dtype(hidden_TE.device.type, hidden_TE.dtype))


class Body(nn.Module):
    """The network without its prediction head."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        self.embeddings = Embeddings(architecture)
        self.layers = nn.ModuleList(Layer(architecture, number) for number in range(architecture.layers))
        self.final_norm = norm(architecture) if architecture.pre_norm else nn.Identity()
        self.gradient_checkpointing = False  # set by PreTrainedModel.gradient_checkpointing_enable
        self.half_residual = False  # in training, the residual stream has the precision of autocast
        self.output_dropout: OutputDropout | None = None  # in training, after each layer's attention

    def forward(
        self,
        inputs_T: Tensor,
        documents: Documents,
        causal: bool,
        backend: str,
        each: list[Tensor] | None = None,
        keys_T: Tensor | None = None,
    ) -> Tensor:
        """Return the states after the final norm, (T, E), for ids (T,) or embeddings (T, E).

        Args:
            inputs_T: Ids or embeddings.
            documents: The documents of the batch.
            causal: Whether a token sees only itself and earlier tokens.
            backend: Name of the attention back end.
            each: A list to which the embeddings and the output of each layer are appended.
            keys_T: Random numbers of the tokens for `output_dropout`. None drops nothing.

        Raises:
            UserError: In training with attention dropout.
        """
        dropout = self.architecture.attention_dropout
        if self.training and dropout:
            raise UserError(
                f"attention_dropout is {dropout}, with which this network cannot train; set it to 0."
            )
        views = {local: self._view(local, documents, causal, backend) for local in (False, True)}
        keep = (lambda _: None) if each is None else each.append
        hidden_TE = self.embeddings(inputs_T, documents)
        if self.half_residual and self.training:  # the norms still compute in fp32, as autocast makes them
            hidden_TE = hidden_TE.to(product_dtype(hidden_TE.device.type, hidden_TE.dtype))
        keep(hidden_TE)
        for number, layer in enumerate(self.layers):
            view = views[self.architecture.is_local(number)]
            keys_of_layer_T = None if keys_T is None else layer_keys(keys_T, number)
            if self.gradient_checkpointing and self.training:
                hidden_TE = checkpoint(layer, hidden_TE, view, keys_of_layer_T, use_reentrant=False)
            else:
                hidden_TE = layer(hidden_TE, view, keys_of_layer_T)
            keep(hidden_TE)
        return self.final_norm(hidden_TE)

    def _view(self, local: bool, documents: Documents, causal: bool, backend: str) -> View:
        architecture, tables = self.architecture, None
        if architecture.thetas is not None:
            theta = architecture.thetas[local]
            tables = rotation(documents.positions, architecture.heads, architecture.head_dim, theta)
        window = architecture.window if local else None
        dropout = self.output_dropout.rate if self.output_dropout else 0.0
        return View(documents, causal, window, tables, backend, dropout)


class Head(nn.Module):
    """A head between the body and an output layer, such as the vocabulary."""

    def __init__(self, architecture: Architecture, parts: HeadParts):
        super().__init__()
        self.dense = nn.Linear(architecture.hidden, architecture.hidden, bias=parts.bias)
        self.act = ACT2FN[parts.activation]
        self.norm = norm(architecture) if parts.norm else nn.Identity()

    def forward(self, hidden_TE: Tensor) -> Tensor:
        """Return (T, E) for (T, E)."""
        return self.norm(self.act(self.dense(hidden_TE)))

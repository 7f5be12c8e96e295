"""The modules of ModernBERT, named as in transformers, over T tokens laid end to end.

Shapes: T tokens, E hidden size, H heads, D size of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import ModernBertConfig
from transformers.activations import ACT2FN

from clm_detour.model.attention import attention, varlen
from clm_detour.model.attention.varlen import Operator
from clm_detour.model.compiling import compiled
from clm_detour.model.documents import Documents
from clm_detour.model.dropout import OutputDropout, dropped, layer_keys
from clm_detour.model.gpu import rotary
from clm_detour.model.kernels import window_sides
from clm_detour.model.layout import Layout
from clm_detour.model.precision import product_dtype
from clm_detour.model.rope import Rotation, rotate, rotation
from clm_detour.utils.errors import UserError


@dataclass(frozen=True)
class View:
    """The view of the layers of one kind, global or local, in one forward."""

    documents: Documents
    causal: bool
    window: int | None
    rotation: Rotation
    backend: str
    dropout: float = 0.0  # rate of the dropout after the output projection


def norm(config: ModernBertConfig) -> nn.LayerNorm:
    """Return a layer norm of ModernBERT."""
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)


class Embeddings(nn.Module):
    """Token embeddings with a norm."""

    def __init__(self, config: ModernBertConfig):
        super().__init__()
        padding = config.pad_token_id
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=padding)
        self.norm = norm(config)
        self.drop = nn.Dropout(config.embedding_dropout)

    def forward(self, inputs_T: Tensor) -> Tensor:
        """Return (T, E) for ids (T,), or for embeddings (T, E) that are given in place of ids."""
        embedded_TE = inputs_T if inputs_T.is_floating_point() else self.tok_embeddings(inputs_T)
        return self.drop(self.norm(embedded_TE))


class Attention(nn.Module):
    """The projections around multi-head self-attention."""

    def __init__(self, config: ModernBertConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.Wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.attention_bias)
        self.Wo = nn.Linear(config.hidden_size, config.hidden_size, bias=config.attention_bias)


class MLP(nn.Module):
    """A gated linear unit."""

    def __init__(self, config: ModernBertConfig):
        super().__init__()
        self.Wi = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.mlp_bias)
        self.act = ACT2FN[config.hidden_activation]
        self.drop = nn.Dropout(config.mlp_dropout)
        self.Wo = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, hidden_TE: Tensor) -> Tensor:
        """Return (T, E) for (T, E)."""
        inputs, gate = self.Wi(hidden_TE).chunk(2, dim=-1)
        return self.Wo(self.drop(self.act(inputs) * gate))


class Layer(nn.Module):
    """Attention and MLP, each with a norm before it and a residual around it.

    `torch.compile` compiles a layer whole where attention is an operator that a graph can contain. Elsewhere
    it compiles the parts before and after attention, which are functions of tensors alone.
    """

    def __init__(self, config: ModernBertConfig, number: int):
        super().__init__()
        self.attn_norm = norm(config) if number else nn.Identity()  # the embeddings are already normalized
        self.attn = Attention(config)
        self.mlp_norm = norm(config)
        self.mlp = MLP(config)
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
        qkv_T3E = self.attn.Wqkv(self.attn_norm(hidden_TE))
        return qkv_T3E.unflatten(-1, (3, self.attn.heads, -1))

    def before(self, hidden_TE: Tensor, by: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (T, H, D) each, rotated, for (T, E)."""
        return rotate(self.project(hidden_TE), by)

    def whole(
        self,
        hidden_TE: Tensor,
        by: Rotation,
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

    def after(self, hidden_TE: Tensor, out_THD: Tensor, keys_T: Tensor | None, dropout: float) -> Tensor:
        """Return (T, E) for the layer's input, (T, E), and the output of attention, (T, H, D)."""
        update_TE = self.attn.Wo(out_THD.flatten(1))
        if keys_T is not None:
            update_TE = dropped(update_TE, keys_T, dropout)
        hidden_TE = add(hidden_TE, update_TE)
        return add(hidden_TE, self.mlp(self.mlp_norm(hidden_TE)))


def add(hidden_TE: Tensor, update_TE: Tensor) -> Tensor:
    """Add the output of a block, which under autocast is in half precision, to the residual stream.

    The cast is explicit, because torch.compile merges a product and a sum that follow each other into one
    operation of one precision, and then stops with an error (pytorch issues 164455 and 165718).
    """
    return hidden_TE + update_TE.to(hidden_TE.dtype)


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
    if rotary.takes(queries):
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

    def __init__(self, config: ModernBertConfig, layout: Layout):
        super().__init__()
        self.layout = layout
        self.heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(layout.layers))
        self.final_norm = norm(config)
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
        if self.training and self.attention_dropout:
            raise UserError(
                f"attention_dropout is {self.attention_dropout}, with which this network cannot train; set "
                "it to 0."
            )
        views = {local: self._view(local, documents, causal, backend) for local in (False, True)}
        keep = (lambda _: None) if each is None else each.append
        hidden_TE = self.embeddings(inputs_T)
        if self.half_residual and self.training:  # the norms still compute in fp32, as autocast makes them
            hidden_TE = hidden_TE.to(product_dtype(hidden_TE.device.type, hidden_TE.dtype))
        keep(hidden_TE)
        for number, layer in enumerate(self.layers):
            view = views[self.layout.is_local(number)]
            keys_of_layer_T = None if keys_T is None else layer_keys(keys_T, number)
            if self.gradient_checkpointing and self.training:
                hidden_TE = checkpoint(layer, hidden_TE, view, keys_of_layer_T, use_reentrant=False)
            else:
                hidden_TE = layer(hidden_TE, view, keys_of_layer_T)
            keep(hidden_TE)
        return self.final_norm(hidden_TE)

    def _view(self, local: bool, documents: Documents, causal: bool, backend: str) -> View:
        theta = self.layout.local_theta if local else self.layout.global_theta
        tables = rotation(documents.positions, self.heads, self.head_dim, theta)
        window = self.layout.window if local else None
        dropout = self.output_dropout.rate if self.output_dropout else 0.0
        return View(documents, causal, window, tables, backend, dropout)


class Head(nn.Module):
    """The prediction head, between the body and the vocabulary."""

    def __init__(self, config: ModernBertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.classifier_bias)
        self.act = ACT2FN[config.classifier_activation]
        self.norm = norm(config)

    def forward(self, hidden_TE: Tensor) -> Tensor:
        """Return (T, E) for (T, E)."""
        return self.norm(self.act(self.dense(hidden_TE)))

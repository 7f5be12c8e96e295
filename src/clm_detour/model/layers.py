"""The modules of ModernBERT, named as in transformers, over T tokens laid end to end.

Shapes: T tokens, E hidden size, H heads, D size of a head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch.utils.checkpoint import checkpoint
from transformers import ModernBertConfig
from transformers.activations import ACT2FN

from clm_detour.model.attention import attention
from clm_detour.model.compiling import allow_many_versions
from clm_detour.model.documents import Documents
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

    The parts before and after attention are functions of tensors alone, so that `torch.compile` can compile
    them whole. Attention has kernels of its own, over another number of documents in each batch.
    """

    def __init__(self, config: ModernBertConfig, number: int):
        super().__init__()
        self.attn_norm = norm(config) if number else nn.Identity()  # the embeddings are already normalized
        self.attn = Attention(config)
        self.mlp_norm = norm(config)
        self.mlp = MLP(config)
        self.compiled = False

    def forward(self, hidden_TE: Tensor, view: View) -> Tensor:
        """Return (T, E) for (T, E).

        Raises:
            UserError: If the layer is compiled, and batches had more shapes than torch compiles.
        """
        before, after = compiled_halves() if self.compiled else (Layer.before, Layer.after)
        q_THD, k_THD, v_THD = before(self, hidden_TE, view.rotation)
        out_THD = attention(q_THD, k_THD, v_THD, view.documents, view.causal, view.window, view.backend)
        return after(self, hidden_TE, out_THD)

    def before(self, hidden_TE: Tensor, by: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (T, H, D) each, rotated, for (T, E)."""
        qkv_T3E = self.attn.Wqkv(self.attn_norm(hidden_TE))
        return rotate(qkv_T3E.unflatten(-1, (3, self.attn.heads, -1)), by)

    def after(self, hidden_TE: Tensor, out_THD: Tensor) -> Tensor:
        """Return (T, E) for the layer's input, (T, E), and the output of attention, (T, H, D)."""
        hidden_TE = add(hidden_TE, self.attn.Wo(out_THD.flatten(1)))
        return add(hidden_TE, self.mlp(self.mlp_norm(hidden_TE)))


def add(hidden_TE: Tensor, update_TE: Tensor) -> Tensor:
    """Add the output of a block, which under autocast is in half precision, to the residual stream.

    The cast is explicit, because torch.compile merges a product and a sum that follow each other into one
    operation of one precision, and then stops with an error (pytorch issues 164455 and 165718).
    """
    return hidden_TE + update_TE.to(hidden_TE.dtype)


@functools.cache
def compiled_halves() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return `Layer.before` and `Layer.after`, compiled for the shapes that occur. All layers share the code.

    Each shape needs several versions of each: for the first layer and the others, frozen or not, with
    gradients and without.
    """
    allow_many_versions()
    return compiled(Layer.before), compiled(Layer.after)


def compiled(half: Callable[..., Any]) -> Callable[..., Any]:
    """Return one of these functions compiled, with a clear error at torch's limit of versions."""
    run = torch.compile(half, fullgraph=True, dynamic=False)

    @functools.wraps(half)
    def explained(*args: Any) -> Any:
        try:
            return run(*args)
        except FailOnRecompileLimitHit:
            raise UserError(
                "Batches have had more shapes than torch.compile takes; give every forward the same number "
                "of tokens (train.micro_rows of a recipe) or do without it (train.compile: false, no "
                "compile_layers())."
            ) from None

    return explained


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

    def forward(
        self,
        inputs_T: Tensor,
        documents: Documents,
        causal: bool,
        backend: str,
        each: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the states after the final norm, (T, E), for ids (T,) or embeddings (T, E).

        Args:
            inputs_T: Ids or embeddings.
            documents: The documents of the batch.
            causal: Whether a token sees only itself and earlier tokens.
            backend: Name of the attention back end.
            each: A list to which the embeddings and the output of each layer are appended.

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
            if self.gradient_checkpointing and self.training:
                hidden_TE = checkpoint(layer, hidden_TE, view, use_reentrant=False)
            else:
                hidden_TE = layer(hidden_TE, view)
            keep(hidden_TE)
        return self.final_norm(hidden_TE)

    def _view(self, local: bool, documents: Documents, causal: bool, backend: str) -> View:
        theta = self.layout.local_theta if local else self.layout.global_theta
        tables = rotation(documents.positions, self.heads, self.head_dim, theta)
        return View(documents, causal, self.layout.window if local else None, tables, backend)


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

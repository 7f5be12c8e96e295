"""Read the config of a BERT: post-norm, biases, absolute positions, token types. Name its weights."""

from __future__ import annotations

from typing import Any

from clm_detour.model.architecture import Architecture, HeadParts, Positions, check_sizes
from clm_detour.model.families.family import Names
from clm_detour.utils.errors import UserError

EMBEDDINGS = {
    ".embeddings.word_embeddings.": ".embeddings.tok_embeddings.",
    ".embeddings.LayerNorm.": ".embeddings.norm.",
}
LAYERS = {
    ".encoder.layer.": ".layers.",
    ".attention.output.dense.": ".attn.Wo.",
    ".attention.output.LayerNorm.": ".attn_norm.",
    ".intermediate.dense.": ".mlp.Wi.",
    ".output.dense.": ".mlp.Wo.",
    ".output.LayerNorm.": ".mlp_norm.",
}
QKV = (".attention.self.query.", ".attention.self.key.", ".attention.self.value.")
PARTS = {**EMBEDDINGS, **LAYERS}
TANH = HeadParts("tanh", norm=False)
NAMES = Names(
    body="bert.",
    parts=PARTS,
    qkv=QKV,
    heads={
        "ForMaskedLM": {
            "cls.predictions.transform.dense.": "head.dense.",
            "cls.predictions.transform.LayerNorm.": "head.norm.",
            "cls.predictions.decoder.weight": "decoder.weight",
            "cls.predictions.bias": "decoder.bias",
        },
        "ForSequenceClassification": {"bert.pooler.dense.": "head.dense."},
    },
    second_bias="cls.predictions.decoder.bias",
    unused=("bert.pooler.", "cls.seq_relationship.", "bert.embeddings.position_ids"),
)


def read(config: Any) -> Architecture:
    """Read and check the config of a BERT.

    Raises:
        UserError: If it asks for something that the network does not compute exactly.
    """
    return with_positions(config, Positions(config.max_position_embeddings), config.hidden_act)


def with_positions(config: Any, positions: Positions, head_activation: str) -> Architecture:
    """Return the architecture of a BERT or RoBERTa with these positions.

    Args:
        head_activation: Activation of the prediction head.

    Raises:
        UserError: As `read`.
    """
    check_sizes(config, ("hidden_act",), "BERT uses 'gelu'")
    kind = getattr(config, "position_embedding_type", None) or "absolute"
    if kind != "absolute":
        raise UserError(
            f"position_embedding_type {kind!r} is not known to this network, which has absolute positions "
            "for this family; use a model with 'absolute'."
        )
    if config.is_decoder or getattr(config, "add_cross_attention", False):
        raise UserError(
            "is_decoder is true, so this is a causal model of transformers; save its weights with "
            "is_decoder: false, and set causal = True here for the causal mask."
        )
    if positions.longest < 1:
        raise UserError(
            f"max_position_embeddings {config.max_position_embeddings} leaves no position after the padding "
            f"id {config.pad_token_id}; correct one of them."
        )
    dropout = getattr(config, "classifier_dropout", None)
    return Architecture(
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        padding=config.pad_token_id,
        pre_norm=False,
        norm_eps=config.layer_norm_eps,
        norm_bias=True,
        attention_bias=True,
        mlp_bias=True,
        activation=config.hidden_act,
        gated=False,
        head=HeadParts(head_activation),
        document_head=TANH,
        token_head=None,
        decoder_bias=True,
        tied=config.tie_word_embeddings,
        std=config.initializer_range,
        out_std=config.initializer_range,
        classifier_std=config.initializer_range,
        positions=positions,
        token_types=config.type_vocab_size,
        classifier_dropout=config.hidden_dropout_prob if dropout is None else dropout,
    )

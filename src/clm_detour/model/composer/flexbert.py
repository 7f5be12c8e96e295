"""The config and the names of weights of FlexBERT, the class that trained ModernBERT, as ModernBERT's own.

FlexBERT (github.com/AnswerDotAI/ModernBERT, `src/bert_layers`) has many options; ModernBERT of transformers
is one choice of them. A network with another choice is refused, since its weights would mean something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import ModernBertConfig

from clm_detour.model.weights import EMBEDDING
from clm_detour.utils.errors import UserError

FIXED: dict[str, Any] = {  # options of FlexBERT that ModernBERT has chosen
    "attention_layer": "rope",
    "bert_layer": "prenorm",
    "embedding_layer": "sans_pos",
    "mlp_layer": "glu",
    "normalization": "layernorm",
    "embed_norm": True,
    "final_norm": True,
    "skip_first_prenorm": True,
    "head_pred_norm": True,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "tie_word_embeddings": True,
}
PADDING = "padded_", "unpadded_"  # prefixes of attention_layer and others, which do not change the network
FIRST_LAYERS = "initial_attention_layer", "initial_bert_layer", "initial_mlp_layer"
SAME = {  # key of ModernBERT -> key of FlexBERT
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "hidden_activation": "hidden_act",
    "classifier_activation": "head_pred_act",
    "classifier_bias": "head_pred_bias",
    "attention_bias": "attn_qkv_bias",
    "mlp_bias": "mlp_in_bias",
    "decoder_bias": "decoder_bias",
}
RENAMED = (
    (re.compile(r"^bert\.encoder\.layers\."), "model.layers."),
    (re.compile(r"^bert\."), "model."),
)


def modernbert_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights by ModernBERT's names. A name that FlexBERT does not have stays as it is."""
    return {modernbert_name(name): weight for name, weight in weights.items()}


def modernbert_name(name: str) -> str:
    """Return ModernBERT's name of a weight."""
    name = name.removeprefix("module.").removeprefix("model.")
    for pattern, replacement in RENAMED:
        name = pattern.sub(replacement, name)
    return name


def modernbert_config(
    flex: Mapping[str, Any], weights: Mapping[str, Tensor], positions: int, **special: int
) -> ModernBertConfig:
    """Return the config of ModernBERT for a config of FlexBERT.

    Args:
        flex: Keys of FlexBERT's config.
        weights: The weights by ModernBERT's names, of which the embedding has the size of the vocabulary.
        positions: Longest input in tokens.
        special: Ids of the special tokens, as keys of the config.

    Raises:
        UserError: If FlexBERT was given options that ModernBERT does not have, or there is no embedding.
    """
    check_options(flex)
    if EMBEDDING not in weights:
        raise UserError(
            f"The checkpoint has no {EMBEDDING}, as a FlexBERT has; only checkpoints of the training code of "
            "ModernBERT can be converted."
        )
    norm = flex.get("norm_kwargs") or {}
    keys: dict[str, Any] = {key: flex[theirs] for key, theirs in SAME.items() if theirs in flex}
    keys |= attention_keys(flex) | special
    keys |= {"norm_eps": norm.get("eps", 1e-5), "norm_bias": norm.get("bias", True)}
    keys |= {"vocab_size": len(weights[EMBEDDING]), "max_position_embeddings": positions}
    return ModernBertConfig(**keys, tie_word_embeddings=True)


def attention_keys(flex: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of local and global layers, and of their rotary embeddings."""
    theta, window = flex.get("rotary_emb_base", 10_000.0), flex.get("sliding_window", -1)
    if window == -1:  # no layer is local
        return {"global_attn_every_n_layers": 1, "global_rope_theta": theta, "local_rope_theta": theta}
    local = flex.get("local_attn_rotary_emb_base", -1)
    return {
        "global_attn_every_n_layers": flex["global_attn_every_n_layers"],
        "local_attention": window,
        "global_rope_theta": theta,
        "local_rope_theta": theta if local == -1 else local,
    }


def check_options(flex: Mapping[str, Any]) -> None:
    """Check that a FlexBERT is built as ModernBERT is.

    Raises:
        UserError: If it is not; the error names the option.
    """
    head_size = flex["hidden_size"] // flex["num_attention_heads"] if "hidden_size" in flex else None
    allowed: dict[str, tuple[Any, ...]] = {key: (value,) for key, value in FIXED.items()}
    allowed |= dict.fromkeys(FIRST_LAYERS, (None,))
    allowed |= dict.fromkeys(("rotary_emb_dim", "local_attn_rotary_emb_dim"), (None, head_size))
    allowed["attn_out_bias"] = (flex.get("attn_qkv_bias", False),)
    allowed["mlp_out_bias"] = (flex.get("mlp_in_bias", False),)
    for key, values in allowed.items():
        found = flex.get(key, DEFAULTS.get(key))
        if isinstance(found, str):
            found = found.removeprefix(PADDING[1]).removeprefix(PADDING[0])
        if found not in values:
            raise UserError(
                f"The checkpoint's network has {key}: {found}, and a ModernBERT has {values[0]}; it cannot "
                "be converted."
            )
    if flex.get("sliding_window", -1) != -1 and flex.get("global_attn_every_n_layers", -1) < 1:
        raise UserError(
            "All layers of the checkpoint's network are local, and a ModernBERT has global ones; it cannot "
            "be converted."
        )


DEFAULTS: dict[str, Any] = {  # of FlexBertConfig, for keys that a checkpoint leaves out
    "attention_layer": "base",
    "bert_layer": "prenorm",
    "embedding_layer": "absolute_pos",
    "mlp_layer": "mlp",
    "normalization": "rmsnorm",
    "embed_norm": True,
    "final_norm": False,
    "skip_first_prenorm": False,
    "head_pred_norm": True,
    "rotary_emb_interleaved": False,
    "tie_word_embeddings": True,
    "attn_out_bias": False,
    "mlp_out_bias": False,
}

"""Read a `ModernBertConfig`: pre-norm, gated, with rotary positions in global and in local layers.

Releases of transformers before 5 write `global_attn_every_n_layers`, `global_rope_theta` and
`local_rope_theta`; later ones write `layer_types` and `rope_parameters`. A config that the network cannot
follow exactly is refused, with the name of the key.
"""

from __future__ import annotations

import math
from typing import Any

from transformers import ModernBertConfig

from clm_detour.model.architecture import Architecture, HeadParts, check_sizes
from clm_detour.utils.errors import UserError

GLOBAL, LOCAL = "full_attention", "sliding_attention"


def read(config: ModernBertConfig) -> Architecture:
    """Read and check a config.

    Raises:
        UserError: If it asks for something that the network does not compute exactly.
    """
    _check(config)
    head = HeadParts(config.classifier_activation, config.classifier_bias)
    return Architecture(
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        padding=config.pad_token_id,
        pre_norm=True,
        norm_eps=config.norm_eps,
        norm_bias=config.norm_bias,
        attention_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
        activation=config.hidden_activation,
        gated=True,
        head=head,
        document_head=head,
        token_head=head,
        decoder_bias=config.decoder_bias,
        tied=config.tie_word_embeddings,
        std=config.initializer_range,
        out_std=config.initializer_range / math.sqrt(2.0 * config.num_hidden_layers),
        classifier_std=config.hidden_size**-0.5,
        cutoff=config.initializer_cutoff_factor or 3,
        every=_every(config),
        window=config.local_attention // 2,
        thetas=_thetas(config),
        attention_dropout=config.attention_dropout,
        embedding_dropout=config.embedding_dropout,
        mlp_dropout=config.mlp_dropout,
        classifier_dropout=config.classifier_dropout,
    )


def config_keys(config: ModernBertConfig) -> dict[str, Any]:
    """Return the keys of a config that say the same in every transformers version."""
    every, (global_theta, local_theta) = _every(config), _thetas(config)
    return {
        "global_attn_every_n_layers": every,
        "layer_types": [LOCAL if layer % every else GLOBAL for layer in range(config.num_hidden_layers)],
        "global_rope_theta": global_theta,
        "local_rope_theta": local_theta,
        "rope_parameters": {
            GLOBAL: {"rope_type": "default", "rope_theta": global_theta},
            LOCAL: {"rope_type": "default", "rope_theta": local_theta},
        },
    }


def _check(config: ModernBertConfig) -> None:
    check_sizes(config, ("hidden_activation", "classifier_activation"), "ModernBERT uses 'gelu'")
    wanted = config.hidden_size // config.num_attention_heads
    head_dim = getattr(config, "head_dim", None)
    if head_dim not in (None, wanted):
        raise UserError(
            f"head_dim {head_dim} is not hidden_size / num_attention_heads = {wanted}; remove it."
        )
    if config.local_attention < 2:
        raise UserError(
            f"local_attention {config.local_attention} leaves no window; ModernBERT uses 128 (64 on each "
            "side)."
        )


def _every(config: ModernBertConfig) -> int:
    """Return the spacing of global layers."""
    layers = config.num_hidden_layers
    types = getattr(config, "layer_types", None)
    if types is None:
        return config.global_attn_every_n_layers
    every = next((i for i in range(1, layers) if types[i : i + 1] == [GLOBAL]), layers)
    if list(types) != [LOCAL if i % every else GLOBAL for i in range(layers)]:
        raise UserError(
            "layer_types is not one global layer (full_attention) followed by a fixed number of local ones "
            f"(sliding_attention), {layers} in all; transformers before 5 cannot say that, and neither can "
            "this network."
        )
    return every


def _thetas(config: ModernBertConfig) -> tuple[float, float]:
    rope = getattr(config, "rope_parameters", None)
    if rope is None:
        _refuse_scaling("rope_scaling", getattr(config, "rope_scaling", None) or {})
        base, local = config.global_rope_theta, config.local_rope_theta
    else:
        for kind in (GLOBAL, LOCAL):
            _refuse_scaling(f"rope_parameters.{kind}", rope[kind])
        base, local = rope[GLOBAL]["rope_theta"], rope[LOCAL]["rope_theta"]
    return float(base), float(base if local is None else local)


def _refuse_scaling(key: str, parameters: dict[str, Any]) -> None:
    """Refuse all but plain rotary positions: any other key changes the angles."""
    plain = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1.0}
    for name, value in parameters.items():
        if name != "rope_theta" and (name not in plain or value != plain[name]):
            raise UserError(
                f"{key}.{name} is {value!r}; only plain rotary positions (rope_type 'default') are known."
            )

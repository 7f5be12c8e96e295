"""Read from a `ModernBertConfig` how layers attend: global or local, window, rotary positions.

Releases of transformers before 5 write `global_attn_every_n_layers`, `global_rope_theta` and
`local_rope_theta`; later ones write `layer_types` and `rope_parameters`. A config that the network cannot
follow exactly is refused, with the name of the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import ModernBertConfig
from transformers.activations import ACT2FN

from clm_detour.utils.errors import UserError

GLOBAL, LOCAL = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Layout:
    """The layers that are global, and how far the others see.

    Args:
        layers: Number of layers.
        every: Layers 0, every, 2 * every, ... are global, the others local.
        window: Number of tokens that a local layer sees on each side, inclusive.
        global_theta, local_theta: Bases of the rotary positions.
    """

    layers: int
    every: int
    window: int
    global_theta: float
    local_theta: float

    def is_local(self, layer: int) -> bool:
        """Return whether this layer sees only a window."""
        return layer % self.every != 0

    def config_keys(self) -> dict[str, Any]:
        """Return the keys of a config that say the same in every transformers version."""
        types = [LOCAL if self.is_local(layer) else GLOBAL for layer in range(self.layers)]
        return {
            "global_attn_every_n_layers": self.every,
            "layer_types": types,
            "global_rope_theta": self.global_theta,
            "local_rope_theta": self.local_theta,
            "rope_parameters": {
                GLOBAL: {"rope_type": "default", "rope_theta": self.global_theta},
                LOCAL: {"rope_type": "default", "rope_theta": self.local_theta},
            },
        }


def layout_of(config: ModernBertConfig) -> Layout:
    """Read and check a config.

    Raises:
        UserError: If it asks for something that the network does not compute exactly.
    """
    _check_sizes(config)
    global_theta, local_theta = _thetas(config)
    return Layout(
        config.num_hidden_layers, _every(config), config.local_attention // 2, global_theta, local_theta
    )


def _check_sizes(config: ModernBertConfig) -> None:
    heads, hidden = config.num_attention_heads, config.hidden_size
    if heads < 1 or hidden % heads or hidden // heads % 2:
        raise UserError(
            f"hidden_size {hidden} over num_attention_heads {heads} is no even number; change one of them."
        )
    padding = config.pad_token_id
    if padding is not None and not 0 <= padding < config.vocab_size:
        raise UserError(
            f"pad_token_id {padding} is not in the vocabulary of {config.vocab_size}; change one of them."
        )
    head_dim = getattr(config, "head_dim", None)
    if head_dim not in (None, hidden // heads):
        raise UserError(
            f"head_dim {head_dim} is not hidden_size / num_attention_heads = {hidden // heads}; remove it."
        )
    for key in ("hidden_activation", "classifier_activation"):
        if getattr(config, key) not in ACT2FN:
            raise UserError(
                f"{key} {getattr(config, key)!r} is not known to transformers; ModernBERT uses 'gelu'."
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

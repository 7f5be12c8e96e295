"""Conversion to and from transformers' causal class, `ModernBertDecoderForCausalLM`, which generates text.

The weights are the same, except for their names and for queries, keys and values, which that class keeps
apart. Two things differ in the config. The class counts the token itself in the window of a local layer, so
64 tokens to the left are its 65. And its releases before 5 ignore `local_rope_theta` and lose the window when
they save, so they cannot hold these models at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import ModernBertConfig

from clm_detour.model import hf
from clm_detour.model.layout import layout_of
from clm_detour.model.weights import check_tied
from clm_detour.utils.errors import UserError

SAME_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "hidden_activation", "max_position_embeddings", "initializer_range", "initializer_cutoff_factor",
    "norm_eps", "norm_bias", "pad_token_id", "eos_token_id", "bos_token_id", "cls_token_id", "sep_token_id",
    "attention_bias", "attention_dropout", "embedding_dropout", "mlp_bias", "mlp_dropout", "decoder_bias",
    "classifier_dropout", "classifier_bias", "classifier_activation", "layer_types", "rope_parameters",
    "tie_word_embeddings",
)  # fmt: skip
QKV, APART = ".attn.Wqkv.", (".attn.q_proj.", ".attn.k_proj.", ".attn.v_proj.")


def to_decoder(model: hf.FolderModel) -> Any:
    """Return the `ModernBertDecoderForCausalLM` with the logits of this causal model, in evaluation mode.

    Raises:
        UserError: If the model is bidirectional, its decoder is no longer the embedding, transformers is
            older than 5, or its class does not accept the config.
    """
    decoder_config, decoder_class = _classes()
    if not model.causal:
        raise UserError("A decoder is causal but this model is bidirectional; set model.causal = True first.")
    weights = model.state_dict()
    if hf.is_tied(model):
        check_tied(weights)
    keys = {key: getattr(model.config, key) for key in SAME_KEYS}
    try:
        config = decoder_config(**keys, local_attention=2 * (layout_of(model.config).window + 1))
    except Exception as error:  # its type differs between releases
        raise UserError(
            f"transformers' decoder does not accept the config ({' '.join(str(error).split())}); change it "
            "in model.config."
        ) from error
    projection = model.get_output_embeddings().weight
    decoder = decoder_class(config).to(projection.dtype)
    decoder.load_state_dict(dict(_taken_apart(weights)))
    return decoder.to(projection.device).eval()


def encoder_config(decoder_config: Any) -> ModernBertConfig:
    """Return the config of the causal model with the same logits as a decoder of this config.

    Raises:
        UserError: If transformers is older than 5.
    """
    _classes()
    keys = {key: getattr(decoder_config, key) for key in SAME_KEYS}
    return ModernBertConfig(**keys, local_attention=2 * (decoder_config.sliding_window - 1))


def from_decoder(cls: type[hf.Model], decoder: Any, attention_backend: str | None = None) -> hf.Model:
    """Return the causal model with the same logits as a `ModernBertDecoderForCausalLM`, in evaluation mode.

    Raises:
        UserError: If transformers is older than 5, the decoder is of another class, or its config asks for
            something that the network does not compute exactly.
    """
    _, decoder_class = _classes()
    if not isinstance(decoder, decoder_class):
        raise UserError(
            f"from_decoder takes a {decoder_class.__name__}, not a {type(decoder).__name__}; open the folder "
            "of a masked model with from_pretrained and set causal = True."
        )
    model = cls(encoder_config(decoder.config), attention_backend)
    hf.fill(model, dict(_put_together(decoder.state_dict())), "the decoder", dtype=None)
    model.causal = True
    return model.to(decoder.device).eval()


def _classes() -> tuple[Any, Any]:
    if int(transformers.__version__.split(".")[0]) < 5:
        raise UserError(
            f"transformers {transformers.__version__} has no causal ModernBERT with its own local rope theta "
            "and window; install transformers >= 5."
        )
    return transformers.ModernBertDecoderConfig, transformers.ModernBertDecoderForCausalLM


def _taken_apart(weights: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    renamed = []
    for name, weight in weights.items():
        if QKV in name:
            parts = zip(APART, weight.chunk(3), strict=True)
            renamed += [(name.replace(QKV, apart), part) for apart, part in parts]
        else:
            renamed.append((f"lm_{name}" if name.startswith("head.") else name, weight))
    return renamed


def _put_together(weights: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    renamed = []
    for name, weight in weights.items():
        if APART[0] in name:
            parts = [weights[name.replace(APART[0], apart)] for apart in APART]
            renamed.append((name.replace(APART[0], QKV), torch.cat(parts)))
        elif not any(apart in name for apart in APART):
            renamed.append((name.removeprefix("lm_"), weight))
    return renamed

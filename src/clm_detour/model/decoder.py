"""Conversion to and from transformers' causal classes, which generate text.

Those of BERT and RoBERTa have the weights and the config of the masked ones, with `is_decoder`. A
`ModernBertDecoderForCausalLM` has other names and keeps queries, keys and values apart. Two things differ in
its config. The class counts the token itself in the window of a local layer, so
64 tokens to the left are its 65. And its releases before 5 ignore `local_rope_theta` and lose the window when
they save, so they cannot hold these models at all.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import ModernBertConfig

from clm_detour.model import hf
from clm_detour.model.families import FAMILIES, architecture_of, family_of
from clm_detour.model.families.family import Family
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
    """Return transformers' causal model with the logits of this causal model, in evaluation mode.

    It is a `ModernBertDecoderForCausalLM`, `BertLMHeadModel`, `RobertaForCausalLM` or the like.

    Raises:
        UserError: If the model is bidirectional, its decoder is no longer the embedding, or transformers'
            class does not accept the config; for a ModernBERT also if transformers is older than 5.
    """
    family = family_of(model.config)
    decoder_class = _class(family)
    if not model.causal:
        raise UserError("A decoder is causal but this model is bidirectional; set model.causal = True first.")
    weights = model.state_dict()
    if hf.is_tied(model):
        check_tied(weights)
    try:
        config = _decoder_config(model.config) if family.names is None else _as_decoder(model.config, True)
    except Exception as error:  # its type differs between releases
        raise UserError(
            f"transformers' decoder does not accept the config ({' '.join(str(error).split())}); change it "
            "in model.config."
        ) from error
    projection = model.get_output_embeddings().weight
    decoder = decoder_class(config).to(projection.dtype)
    if family.names is None:
        decoder.load_state_dict(dict(_taken_apart(weights)))
    else:
        decoder.load_state_dict(family.to_theirs(weights, "ForMaskedLM"))
    return decoder.to(projection.device).eval()


def _as_decoder(config: Any, is_decoder: bool) -> Any:
    """Return a copy of the config of a BERT or RoBERTa in its causal or in its bidirectional form."""
    copied = copy.deepcopy(config)
    copied.is_decoder, copied.architectures = is_decoder, None
    return copied


def _decoder_config(config: Any) -> Any:
    """Return the config of the causal form of a ModernBERT."""
    keys = {key: getattr(config, key) for key in SAME_KEYS}
    window = architecture_of(config).window
    assert window is not None
    return transformers.ModernBertDecoderConfig(**keys, local_attention=2 * (window + 1))


def encoder_config(decoder_config: Any) -> Any:
    """Return the config of the causal model with the same logits as a decoder of this config.

    Raises:
        UserError: If it is that of a ModernBERT and transformers is older than 5.
    """
    if decoder_config.model_type in FAMILIES:
        return _as_decoder(decoder_config, False)
    _class(FAMILIES["modernbert"])
    keys = {key: getattr(decoder_config, key) for key in SAME_KEYS}
    return ModernBertConfig(**keys, local_attention=2 * (decoder_config.sliding_window - 1))


def from_decoder(cls: type[hf.Model], decoder: Any, attention_backend: str | None = None) -> hf.Model:
    """Return the causal model with the same logits as transformers' causal model, in evaluation mode.

    Raises:
        UserError: If the decoder is of another class, or its config asks for something that the network does
            not compute exactly; for a ModernBERT also if transformers is older than 5.
    """
    found = type(decoder).__name__
    family = next((family for family in FAMILIES.values() if family.decoder == found), None)
    if family is None:
        raise UserError(
            f"from_decoder takes a {' or '.join(family.decoder for family in FAMILIES.values())}, not a "
            f"{found}; open the folder of a masked model with from_pretrained and set causal = True."
        )
    model = cls(encoder_config(decoder.config), attention_backend)
    weights: Mapping[str, Tensor] = decoder.state_dict()
    if family.names is None:
        weights = dict(_put_together(weights))
    else:
        weights, _ = family.to_ours(weights, "ForMaskedLM", decoder.config.tie_word_embeddings, "the decoder")
    hf.fill(model, weights, "the decoder", dtype=None)
    model.causal = True
    return model.to(decoder.device).eval()


def _class(family: Family) -> Any:
    if family.names is None and int(transformers.__version__.split(".")[0]) < 5:
        raise UserError(
            f"transformers {transformers.__version__} has no causal ModernBERT with its own local rope theta "
            "and window; install transformers >= 5."
        )
    return getattr(transformers, family.decoder)


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

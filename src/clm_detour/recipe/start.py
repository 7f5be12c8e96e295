"""Networks from which training starts: `model.base`, or a new one with random weights.

`model.base` may be a masked language model, or a causal ModernBERT in transformers' own class (here called a
decoder).
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ModernBertConfig

from clm_detour.data.tokenizer import Tokenizer
from clm_detour.model.decoder import encoder_config
from clm_detour.model.families import architecture_of, is_known, refusal
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.pretrained import can_fill_masks, read_config
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.rules import unknown_key

DECODER = "modernbert-decoder"
VOCABULARY_MULTIPLE = (
    64  # matrix kernels are fastest at such sizes; ModernBERT's own vocabulary is padded to it
)


def load_network(path: str, backend: str | None) -> ModernBertForPretraining:
    """Return the network of a folder or hub id, bidirectional whatever its config says."""
    return ModernBertForPretraining.from_pretrained(path, attention_backend=backend, causal=False)


def load_base(path: str, backend: str | None, seed: int = 0) -> ModernBertForPretraining:
    """Return the network of `model.base`; for a decoder, one with the same logits under the causal mask.

    A base without a masked-LM head, such as a body alone or a classifier, gets a new one.

    Args:
        seed: Seed of a new head.

    Raises:
        UserError: If there is no model, or its weights do not fit its config exactly.
    """
    if not is_decoder(path):
        if can_fill_masks(path):
            return load_network(path, backend)
        torch.manual_seed(seed)
        return ModernBertForPretraining.from_encoder(path, attention_backend=backend)
    decoder, info = read_decoder(path)
    wrong = sorted(
        str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind]
    )
    if wrong:
        raise UserError(
            f"model.base: the weights of {path} do not fit its config ({', '.join(wrong[:5])}); use a folder "
            "that was saved completely."
        )
    return ModernBertForPretraining.from_decoder(decoder, backend)


def read_decoder(path: str) -> tuple[Any, dict[str, Any]]:
    """Load a decoder in fp32.

    Returns:
        The model, and transformers' loading info.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # its type differs between releases of transformers
        raise UserError(
            f"model.base: the weights of {path} cannot be read ({on_one_line(error)}); use a folder that was "
            "saved completely."
        ) from None
    return loaded


def read_base(path: str) -> Any:
    """Return the config of `model.base`, whatever its model type.

    Raises:
        UserError: If it has no config that can be read.
    """
    try:
        return read_config(path)
    except UserError as error:
        raise UserError(f"model.base: {error}") from None


def is_decoder(path: str) -> bool:
    """Return whether `model.base` is a decoder.

    Raises:
        UserError: If it has no config that can be read.
    """
    return read_base(path).model_type == DECODER


def base_config(path: str) -> Any:
    """Return the config of `model.base`, converted if it is a decoder.

    Raises:
        UserError: If there is no config, or the network does not compute models of its type.
    """
    config = read_base(path)
    if config.model_type == DECODER:
        return encoder_config(config)
    if not is_known(config.model_type):
        raise UserError(f"model.base: {path} {refusal(config.model_type)}.")
    return config


def longest_document(base: str | None) -> int | None:
    """Return the number of tokens at which documents are cut for `model.base`, None if there is no limit.

    Raises:
        UserError: If there is no config, or the network does not compute the model.
    """
    return None if base is None else architecture_of(base_config(base)).longest


def fresh_config(keys: dict[str, Any], tokenizer: Tokenizer) -> ModernBertConfig:
    """Return the config of a new model for a tokenizer.

    Args:
        keys: Keys of ModernBertConfig to set.

    Raises:
        UserError: If ModernBertConfig does not have one of the keys.
    """
    check_keys(keys)
    special = {
        "vocab_size": pad_vocabulary(tokenizer.vocab_size),
        "pad_token_id": tokenizer.pad,
        "cls_token_id": tokenizer.cls,
        "sep_token_id": tokenizer.sep,
        "bos_token_id": tokenizer.cls,
        "eos_token_id": tokenizer.sep,
    }
    return ModernBertConfig(**{**special, **keys})


def untrained_config(keys: dict[str, Any], vocab_size: int) -> ModernBertConfig:
    """Return `fresh_config` before the tokenizer is trained: sizes are right, ids of special tokens are not.

    Raises:
        UserError: If ModernBertConfig does not have one of the keys.
    """
    check_keys(keys)
    ids = dict.fromkeys((f"{name}_token_id" for name in ("pad", "cls", "sep", "bos", "eos")), 0)
    return ModernBertConfig(**{"vocab_size": pad_vocabulary(vocab_size), **ids, **keys})


def pad_vocabulary(vocab_size: int) -> int:
    """Return the number of rows of the embedding for a vocabulary."""
    return VOCABULARY_MULTIPLE * math.ceil(vocab_size / VOCABULARY_MULTIPLE)


def check_keys(keys: dict[str, Any]) -> None:
    """Raise UserError if ModernBertConfig does not have one of the keys of `model.config`."""
    known = set(inspect.signature(ModernBertConfig.__init__).parameters) - {"self", "kwargs"}
    known |= {"global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"}
    for key in keys:
        if key not in known:
            raise UserError(unknown_key(key, "model.config.", sorted(known)))


def check_fit(model: Any, tokenizer: Tokenizer) -> None:
    """Check that the model has an embedding for each id of the tokenizer, and the same special tokens.

    Raises:
        UserError: If it does not.
    """
    if tokenizer.vocab_size > model.vocab_size:
        raise UserError(
            f"The tokenizer has {tokenizer.vocab_size} entries but the model's vocabulary only "
            f"{model.vocab_size}; use the tokenizer that the model was trained with (tokenizer.path)."
        )
    for name, id, *model_ids in (
        ("[PAD]", tokenizer.pad, model.pad_token_id),
        # Models that put texts between <s> and </s> may have other tokens for [CLS] and [SEP].
        ("[CLS]", tokenizer.cls, getattr(model, "cls_token_id", None), model.bos_token_id),
        ("[SEP]", tokenizer.sep, getattr(model, "sep_token_id", None), model.eos_token_id),
    ):
        if model_ids[0] is not None and id not in model_ids:
            raise UserError(
                f"{name} is {id} in the tokenizer but {model_ids[0]} in the model's config; "
                "use the tokenizer that the model was trained with (tokenizer.path)."
            )

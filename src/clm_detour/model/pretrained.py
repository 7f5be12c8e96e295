"""Open any model with transformers, from a folder or a hub id. No code that comes with a model is run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto import modeling_auto

from clm_detour.model import hf
from clm_detour.model.families import is_known
from clm_detour.model.named_weights import held_in
from clm_detour.model.weights import pickled_files, weight_files
from clm_detour.utils.errors import UserError, on_one_line

AFTER_PADDING = (  # transformers numbers their positions from the padding id + 1
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm",
    "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip


ADD_TOKENIZER = (
    "put the tokenizer.json and tokenizer_config.json of the model that it was trained from into the folder "
    "(AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER))"
)


def read_config(path: str) -> Any:
    """Read the config of a model.

    Raises:
        UserError: If there is none.
    """
    path = hf.as_folder(path)
    if path.startswith(("/", "~", "./", "../")) and not Path(path).expanduser().exists():
        raise UserError(f"{path} does not exist; give a Hugging Face folder or hub id.")
    hf.check_folder(Path(path))
    try:
        return AutoConfig.from_pretrained(path)
    except Exception as error:  # its type differs between releases
        raise UserError(
            f"{path} is not a model that can be opened ({on_one_line(error)}); give a Hugging Face folder or "
            "hub id."
        ) from None


def read_encoder_config(path: str) -> Any:
    """Read the config of an encoder.

    Raises:
        UserError: If there is none, or it belongs to another kind of model.
    """
    config = read_config(path)
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    only_causal = config.model_type in causal and config.model_type not in masked
    hf.check_kind(path, config.model_type)
    if config.is_encoder_decoder:
        raise UserError(f"{path} is an encoder-decoder, not an encoder; save its encoder alone.")
    if only_causal or getattr(config, "is_decoder", False):
        raise UserError(
            f"{path} is a {config.model_type} model, which is no bidirectional encoder; give an encoder such "
            "as a BERT or ModernBERT."
        )
    return config


def check_encoder(path: str, tokenizer: str | None = None) -> tuple[Any, PreTrainedTokenizerBase]:
    """Check that a model can be opened as an encoder, before any work is done. The weights are not read.

    Args:
        path: Folder or hub id.
        tokenizer: Folder or hub id of its tokenizer. None means the model's own.

    Returns:
        The model's config, and its tokenizer.

    Raises:
        UserError: If there is no encoder, it has no weights that are read, or no fast tokenizer that fits it.
    """
    config, opened = read_encoder_config(path), load_fast_tokenizer(tokenizer or path)
    check_vocabulary(path, config, opened)
    if Path(path).is_dir() and not (is_known(config.model_type) and pickled_files(Path(path))):
        weight_files(Path(path))
    return config, opened


def load_fast_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; text that spells a special token is ordinary text to it.

    Raises:
        UserError: If there is none, or it is not a fast one.
    """
    path = hf.as_folder(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, use_fast=True, split_special_tokens=True)
    except Exception as error:  # its type differs between releases and tokenizers
        raise UserError(
            f"{path} has no tokenizer that can be opened ({on_one_line(error)}); {ADD_TOKENIZER}."
        ) from None
    words = tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)
    # Without any file transformers returns a tokenizer of special tokens alone.
    if not tokenizer.is_fast or not words:
        raise UserError(f"{path} has no fast tokenizer; {ADD_TOKENIZER}.")
    return tokenizer


def check_vocabulary(
    path: str, config: Any, tokenizer: PreTrainedTokenizerBase | tokenizers.Tokenizer
) -> None:
    """Check that the model has an embedding for every id of the tokenizer.

    Raises:
        UserError: If it does not.
    """
    largest = max(tokenizer.get_vocab().values())
    if largest >= config.vocab_size:
        raise UserError(
            f"The tokenizer of {path} has ids up to {largest}, its model's vocabulary only "
            f"{config.vocab_size}; put the tokenizer that it was trained with into the folder."
        )


def can_fill_masks(path: str) -> bool:
    """Return whether a model has a masked-LM head, which a body alone and a classifier do not have.

    Raises:
        UserError: If its family is unknown, or there are no weights.
    """
    folder = hf.fetch(path)
    return held_in(folder, hf.read_config(folder)) == "language model"


def load_body(path: str) -> nn.Module:
    """Load an `AutoModel` in fp32. Only its pooler may be missing in the folder.

    Raises:
        UserError: If it cannot be read, or a weight is missing.
    """
    path = hf.as_folder(path)
    if Path(path).is_dir():
        weight_files(Path(path))
    try:
        network, info = AutoModel.from_pretrained(path, use_safetensors=True, output_loading_info=True)
    except Exception as error:  # its type differs between releases and models
        raise UserError(
            f"{path} cannot be opened as a model with safetensors weights ({on_one_line(error)})."
        ) from None
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        others = sorted(info["unexpected_keys"])
        has = f" and has {others[0]}, which its config does not know" if others else ""
        raise UserError(
            f"{path} lacks the weight {missing[0]} (of {len(missing)} missing){has}; use a folder that was "
            "saved whole."
        )
    return network.float()


@contextmanager
def without_load_warnings() -> Iterator[None]:
    """Silence the warnings of our classes about new or omitted weights and about the causal mask."""
    logger = logging.getLogger("clm_detour.model")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def longest_input(config: Any) -> int | None:
    """Return the number of positions that a model can read, None if there is no limit.

    RoBERTa and related models cannot use the positions up to their padding id.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        return None
    lost = (config.pad_token_id or 0) + 1 if config.model_type in AFTER_PADDING else 0
    return positions - lost

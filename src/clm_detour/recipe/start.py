"""The network a phase starts from: its own checkpoint, the end of the phase before, a Hugging Face model, or fresh weights."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ModernBertConfig

from clm_detour.config.schema import Config
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.model.decoder import encoder_config
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.pretrained import read_config
from clm_detour.recipe.freezing import freeze, frozen_names, head_names
from clm_detour.recipe.phases import PhaseRun
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.rules import unknown_key

DECODER = "modernbert-decoder"
VOCABULARY_MULTIPLE = 64  # matrix kernels want it; ModernBERT's own vocabulary is padded so


def starting_network(
    config: Config, run: PhaseRun, tokenizer: Tokenizer, checkpoint: Path | None = None
) -> ModernBertForPretraining:
    """Build and fill the network.

    Args:
        checkpoint: the folder of the phase's own, if it goes on from one.

    Raises:
        UserError: the phase before has not finished, or the tokenizer does not fit the model.
    """
    backend = None if config.model.attention == "auto" else config.model.attention
    if checkpoint is not None:
        network = load_network(checkpoint, backend)
    elif run.parent is not None:
        folder = RunFolder.of(config).phase(run.parent.id)
        if not folder.finished:
            raise UserError(
                f"Phase {run.id} starts from the end of {run.parent.id}, which has not finished; run that first."
            )
        network = load_network(folder.model, backend)
    elif config.model.base is not None:
        network = load_base(config.model.base, backend)
    else:
        torch.manual_seed(config.seed)
        keys = {"max_position_embeddings": config.data.sequence_length, **(config.model.config or {})}
        network = ModernBertForPretraining(fresh_config(keys, tokenizer), backend)
    check_fit(network.config, tokenizer)
    trained = max(network.config.max_position_embeddings, config.data.sequence_length)
    network.config.max_position_embeddings = trained  # of a base no less than it says itself
    if run.phase.reset_head and checkpoint is None:
        reset_head(network, run.seed)
    freeze(run.phase.freeze, network)
    return network.float()


def load_network(path: str | Path, backend: str | None) -> ModernBertForPretraining:
    """A folder's network; its mask is the phase's business, whatever the folder says."""
    return ModernBertForPretraining.from_pretrained(path, attention_backend=backend, causal=False)


def reset_head(network: ModernBertForPretraining, seed: int) -> None:
    """Initialise the prediction head and the decoder's bias anew, and the decoder's weights unless they are the embeddings'."""
    torch.manual_seed(seed)
    network._init_weights(network.head)
    network.head.norm.reset_parameters()
    if not network.config.tie_word_embeddings:
        network._init_weights(network)  # fills the decoder
    if network.decoder.bias is not None:
        torch.nn.init.zeros_(network.decoder.bias)


def fresh_moments(run: PhaseRun, network: ModernBertForPretraining) -> set[str]:
    """The parameters that keep no moments under `moments: keep`: those that the phase before left frozen, and a head that is reset."""
    frozen = frozen_names(run.parent.phase.freeze, network) if run.parent is not None else set()
    return frozen | (head_names(network) if run.phase.reset_head else set())


def load_base(path: str, backend: str | None) -> ModernBertForPretraining:
    """The network of `model.base`; of a ModernBertDecoder the one with the same logits under the causal mask.

    Raises:
        UserError: there is none, or its weights do not fit exactly.
    """
    if not is_decoder(path):
        return load_network(path, backend)
    decoder, told = read_decoder(path)
    wrong = sorted(
        str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in told[kind]
    )
    if wrong:
        raise UserError(
            f"model.base: the weights of {path} are not those of its config ({', '.join(wrong[:5])}); use a folder that was saved whole."
        )
    return ModernBertForPretraining.from_decoder(decoder, backend)


def read_decoder(path: str) -> tuple[Any, dict[str, Any]]:
    """A causal model of transformers in fp32, and what transformers says of its weights.

    Raises:
        UserError: it cannot be read.
    """
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # of a kind that differs between releases
        raise UserError(
            f"model.base: the weights of {path} cannot be read ({on_one_line(error)}); use a folder that was saved whole."
        ) from None
    return loaded


def read_base(path: str) -> Any:
    """The config of `model.base`, of whatever model.

    Raises:
        UserError: it has none that can be read.
    """
    try:
        return read_config(path)
    except UserError as error:
        raise UserError(f"model.base: {error}") from None


def is_decoder(path: str) -> bool:
    """Whether `model.base` is a causal ModernBERT in transformers' own class.

    Raises:
        UserError: it has no config that can be read.
    """
    return read_base(path).model_type == DECODER


def base_config(path: str) -> ModernBertConfig:
    """The config of a Hugging Face folder or hub id.

    Raises:
        UserError: there is none, or it is not a ModernBERT's.
    """
    config = read_base(path)
    if config.model_type == DECODER:
        return encoder_config(config)
    if not isinstance(config, ModernBertConfig):
        raise UserError(
            f"model.base: {path} is a {config.model_type} model; only ModernBERT models can be trained."
        )
    return config


def fresh_config(keys: dict[str, Any], tokenizer: Tokenizer) -> ModernBertConfig:
    """ModernBertConfig of a new model over `tokenizer`'s vocabulary.

    Raises:
        UserError: a key that ModernBertConfig does not have.
    """
    check_keys(keys)
    special = {
        "vocab_size": padded(tokenizer.vocab_size),
        "pad_token_id": tokenizer.pad,
        "cls_token_id": tokenizer.cls,
        "sep_token_id": tokenizer.sep,
        "bos_token_id": tokenizer.cls,
        "eos_token_id": tokenizer.sep,
    }
    return ModernBertConfig(**{**special, **keys})


def untrained_config(keys: dict[str, Any], vocab_size: int) -> ModernBertConfig:
    """`fresh_config` before the tokenizer is trained: the sizes are right, the ids of special tokens are not.

    Raises:
        UserError: a key that ModernBertConfig does not have.
    """
    check_keys(keys)
    ids = dict.fromkeys((f"{name}_token_id" for name in ("pad", "cls", "sep", "bos", "eos")), 0)
    return ModernBertConfig(**{"vocab_size": padded(vocab_size), **ids, **keys})


def padded(vocab_size: int) -> int:
    """Rows of the embedding for so many entries."""
    return VOCABULARY_MULTIPLE * math.ceil(vocab_size / VOCABULARY_MULTIPLE)


def check_keys(keys: dict[str, Any]) -> None:
    """Every key of `model.config` must be one of ModernBertConfig.

    Raises:
        UserError: one is not.
    """
    known = set(inspect.signature(ModernBertConfig.__init__).parameters) - {"self", "kwargs"}
    known |= {"global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"}
    for key in keys:
        if key not in known:
            raise UserError(unknown_key(key, "model.config.", sorted(known)))


def check_fit(model: ModernBertConfig, tokenizer: Tokenizer) -> None:
    """Every id of the tokenizer must have its row in the model, and the special ones must mean the same.

    Raises:
        UserError: they do not fit.
    """
    if tokenizer.vocab_size > model.vocab_size:
        raise UserError(
            f"The tokenizer has {tokenizer.vocab_size} entries but the model's vocabulary only {model.vocab_size}; "
            "use the tokenizer that the model was trained with (tokenizer.path)."
        )
    for name, here, *there in (
        ("[PAD]", tokenizer.pad, model.pad_token_id),
        # Models whose texts stand between <s> and </s> may have other tokens as [CLS] and [SEP] besides.
        ("[CLS]", tokenizer.cls, model.cls_token_id, model.bos_token_id),
        ("[SEP]", tokenizer.sep, model.sep_token_id, model.eos_token_id),
    ):
        if there[0] is not None and here not in there:
            raise UserError(
                f"{name} is {here} in the tokenizer but {there[0]} in the model's config; "
                "use the tokenizer that the model was trained with (tokenizer.path)."
            )

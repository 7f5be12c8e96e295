"""Any encoder behind one interface: token ids of documents laid end to end -> a state for each token, and one for each document.

ModernBERT runs on our network, without padding; every other encoder through transformers' `AutoModel`, padded to the longest
document of the batch. Heads see the same flat tensors in both cases.

Shapes: T tokens, N documents, E hidden size, B rows, L positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto import modeling_auto
from transformers.utils import logging

from clm_detour.errors import UserError
from clm_detour.model import ModernBertForTokenClassification
from clm_detour.model.flops import flops_per_batch

CLS, MEAN = "cls", "mean"
MODERNBERT = "modernbert"


class Encoder(Protocol):
    """What heads and training need of a network.

    Attributes:
        hidden_size: E.
        dropout: before a fresh head.
        longest: positions it can read; None if there is no limit.
    """

    hidden_size: int
    dropout: float
    longest: int | None

    def __call__(self, ids_T: Tensor, lengths: list[int]) -> Tensor:
        """(T,) and the lengths of the N documents -> (T, E)."""

    def pool(self, states_TE: Tensor, lengths: list[int]) -> Tensor:
        """(T, E) -> (N, E)."""

    def ready(self, states: Tensor) -> Tensor:
        """(..., E) -> (..., E): what the pretrained model does before an output layer, if anything."""

    def draw(self, layer: nn.Linear) -> None:
        """Draw a fresh output layer, as transformers draws those of its classifiers."""

    def flops(self, lengths: list[int], training: bool) -> int:
        """Operations of a forward, and in training its backward."""


class PackedModernBert(nn.Module):
    """Our network; its pretrained prediction head comes before the new one, as in transformers' ModernBERT classifiers."""

    def __init__(self, path: str, pooling: str | None):
        super().__init__()
        with without_news():
            self.network = cast(Any, ModernBertForTokenClassification.from_encoder(path, num_labels=1))
        self.network.classifier = nn.Identity()  # each task brings its own head
        config = self.network.config
        self.pooling = pooling or config.classifier_pooling
        self.hidden_size: int = config.hidden_size
        self.dropout: float = config.classifier_dropout
        self.longest: int | None = config.max_position_embeddings

    def forward(self, ids_T: Tensor, lengths: list[int]) -> Tensor:
        """See `Encoder`."""
        return self.network.encode(ids_T[None], document_lengths=[lengths])[0]

    def pool(self, states_TE: Tensor, lengths: list[int]) -> Tensor:
        """See `Encoder`."""
        return pool(states_TE, lengths, self.pooling)

    def ready(self, states: Tensor) -> Tensor:
        """See `Encoder`."""
        return self.network.head(states)

    def draw(self, layer: nn.Linear) -> None:
        """See `Encoder`."""
        self.network.draw(layer)

    def flops(self, lengths: list[int], training: bool) -> int:
        """See `Encoder`; exact but for the new head."""
        return flops_per_batch(self.network.config, lengths, 0, causal=False, training=training).total


def output_layer(encoder: Encoder, outputs: int) -> nn.Linear:
    """A fresh one."""
    layer = nn.Linear(encoder.hidden_size, outputs)
    encoder.draw(layer)
    return layer


@contextmanager
def without_news() -> Iterator[None]:
    """Keeps our classifiers from saying that their head is new, which here goes without saying."""
    logger = getLogger(ModernBertForTokenClassification.__module__)
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


class PaddedEncoder(nn.Module):
    """An `AutoModel`. Under `cls` pooling the model's own pooler is used if it has one, as transformers' classifiers do."""

    def __init__(self, path: str, pooling: str | None, pad: int):
        super().__init__()
        self.network = cast(Any, load_auto_model(path))
        config = self.network.config
        self.pooling = pooling or CLS
        self.pooler = getattr(self.network, "pooler", None) if self.pooling == CLS else None
        self.network.pooler = None
        self.pad = pad
        self.hidden_size: int = config.hidden_size
        own = getattr(config, "classifier_dropout", None)
        self.dropout: float = getattr(config, "hidden_dropout_prob", 0.0) if own is None else own
        self.longest: int | None = longest_input(config)

    def forward(self, ids_T: Tensor, lengths: list[int]) -> Tensor:
        """See `Encoder`."""
        rows = torch.nn.utils.rnn.pad_sequence(ids_T.split(lengths), batch_first=True, padding_value=self.pad)
        mask = (
            torch.arange(rows.shape[1], device=rows.device)
            < torch.tensor(lengths, device=rows.device)[:, None]
        )
        return self.network(input_ids=rows, attention_mask=mask.long()).last_hidden_state[mask]

    def pool(self, states_TE: Tensor, lengths: list[int]) -> Tensor:
        """See `Encoder`."""
        pooled_NE = pool(states_TE, lengths, self.pooling)
        return pooled_NE if self.pooler is None else self.pooler(pooled_NE[:, None])

    def ready(self, states: Tensor) -> Tensor:
        """See `Encoder`: nothing."""
        return states

    def draw(self, layer: nn.Linear) -> None:
        """See `Encoder`."""
        self.network._init_weights(layer)

    def flops(self, lengths: list[int], training: bool) -> int:
        """See `Encoder`: weight matrices outside the embeddings, and attention, over padded rows."""
        embeddings = {
            id(p) for m in self.network.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
        }
        weights = sum(p.numel() for p in self.network.parameters() if p.ndim == 2 and id(p) not in embeddings)
        rows, length = len(lengths), max(lengths)
        layers = getattr(self.network.config, "num_hidden_layers", 0)
        forward = rows * length * (2 * weights + 4 * layers * self.hidden_size * length)
        return forward * (3 if training else 1)


def pool(states_TE: Tensor, lengths: list[int], pooling: str) -> Tensor:
    """(T, E) -> (N, E): first tokens, or means."""
    if pooling == CLS:
        ends = torch.tensor(lengths, device=states_TE.device).cumsum(0)
        return states_TE[ends - torch.tensor(lengths, device=states_TE.device)]
    return torch.stack([document.mean(0) for document in states_TE.split(lengths)])


def load_encoder(path: str, pooling: str | None = None) -> tuple[Encoder, PreTrainedTokenizerBase]:
    """An encoder in fp32 in evaluation mode, and its tokenizer.

    Args:
        path: a folder or hub id.
        pooling: `cls` or `mean`; None: as a ModernBERT's config says, `cls` for others.

    Raises:
        UserError: there is no such model, it is no encoder, weights are missing, or there is no fast tokenizer.
    """
    logging.disable_progress_bar()  # transformers' own, for loading weights
    config = read_config(path)
    tokenizer = load_tokenizer(path)
    check_vocabulary(path, config, tokenizer)
    if config.model_type == MODERNBERT:
        return cast(Encoder, PackedModernBert(path, pooling).eval()), tokenizer
    return cast(Encoder, PaddedEncoder(path, pooling, tokenizer.pad_token_id or 0).eval()), tokenizer


def read_config(path: str) -> Any:
    """A model's config.

    Raises:
        UserError: there is none, or it is not an encoder's.
    """
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is not a model that can be opened ({first_line(error)}); give a Hugging Face folder or hub id."
        ) from None
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    only_causal = config.model_type in causal and config.model_type not in masked
    if only_causal or config.is_encoder_decoder or getattr(config, "is_decoder", False):
        raise UserError(
            f"{path} is a {config.model_type} model, which is no bidirectional encoder; give an encoder such as a BERT or ModernBERT."
        )
    return config


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """A model's own fast tokenizer.

    Raises:
        UserError: there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, use_fast=True)
    except Exception as error:  # of a kind that differs between releases and tokenizers
        raise UserError(
            f"{path} has no tokenizer that can be opened ({first_line(error)}); put its tokenizer.json into the folder."
        ) from None
    if not tokenizer.is_fast or len(tokenizer) < 2:
        raise UserError(f"{path} has no fast tokenizer; put its tokenizer.json into the folder.")
    return tokenizer


def check_vocabulary(path: str, config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Every id of the tokenizer has its row in the model."""
    if max(tokenizer.get_vocab().values()) >= config.vocab_size:
        raise UserError(
            f"The tokenizer of {path} has ids up to {max(tokenizer.get_vocab().values())}, its model's vocabulary only "
            f"{config.vocab_size}; put the tokenizer that it was trained with into the folder."
        )


def load_auto_model(path: str) -> nn.Module:
    """transformers' body of a model; only a pooler may be new.

    Raises:
        UserError: it cannot be read, or a weight is missing.
    """
    try:
        network, info = AutoModel.from_pretrained(path, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be opened as a model with safetensors weights ({first_line(error)})."
        ) from None
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        raise UserError(
            f"{path} lacks the weight {missing[0]} (of {len(missing)} missing); use a folder that was saved whole."
        )
    return network.float()


def longest_input(config: Any) -> int | None:
    """Positions that a model can read; RoBERTa and its kin lose those up to their padding id."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        return None
    roberta = config.model_type in ("roberta", "camembert", "xlm-roberta", "longformer")
    return positions - (config.pad_token_id + 1 if roberta else 0)


def first_line(error: BaseException) -> str:
    """The first line of a message, without its stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

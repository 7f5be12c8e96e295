"""Any encoder behind one interface: token ids of documents laid end to end -> a state for each token, and one for each document.

ModernBERT runs on our network, without padding; every other encoder through transformers' `AutoModel`, padded to the longest
document of the batch. Heads see the same flat tensors in both cases.

Shapes: T tokens, N documents, E hidden size, B rows, L positions.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from clm_detour.model import ModernBertForTokenClassification, hf
from clm_detour.model.flops import flops_per_batch
from clm_detour.model.pretrained import check_encoder, load_body, longest_input, without_news
from clm_detour.model.weights import is_headless, read_shapes

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
    """Our network, bidirectional; its pretrained prediction head comes before the new one, as in transformers' ModernBERT classifiers.

    A `ModernBertModel` has none; then a fresh one is drawn from torch's generator.
    """

    def __init__(self, path: str, pooling: str | None):
        super().__init__()
        with without_news():
            self.network = cast(Any, ModernBertForTokenClassification.from_encoder(path, num_labels=1))
        self.network.causal = False  # whatever the folder says
        self.network.classifier = nn.Identity()  # each task brings its own head
        config = self.network.config
        self.pooling = pooling or config.classifier_pooling
        self.hidden_size: int = config.hidden_size
        self.dropout: float = config.classifier_dropout
        self.longest: int | None = longest_input(config)

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


class PaddedEncoder(nn.Module):
    """An `AutoModel`. Under `cls` pooling the model's own pooler is used if it has one, as transformers' classifiers do."""

    def __init__(self, path: str, pooling: str | None, pad: int):
        super().__init__()
        self.network = cast(Any, load_body(path))
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


def needs_fresh_head(path: str, config: Any) -> bool:
    """Return whether a model is a ModernBERT without a prediction head, for which each run draws one.

    Args:
        path: a folder or hub id.
        config: the model's.

    Raises:
        UserError: there are no weights in safetensors.
    """
    return config.model_type == MODERNBERT and is_headless(read_shapes(hf.fetch(path)))


def load_encoder(path: str, pooling: str | None = None) -> tuple[Encoder, PreTrainedTokenizerBase]:
    """An encoder in fp32 in evaluation mode, and its tokenizer.

    Args:
        path: a folder or hub id.
        pooling: `cls` or `mean`; None: as a ModernBERT's config says, `cls` for others.

    Raises:
        UserError: there is no such model, it is no encoder, weights are missing, or there is no fast tokenizer.
    """
    logging.disable_progress_bar()  # transformers' own, for loading weights
    config, tokenizer = check_encoder(path)
    if config.model_type == MODERNBERT:
        return cast(Encoder, PackedModernBert(path, pooling).eval()), tokenizer
    return cast(Encoder, PaddedEncoder(path, pooling, tokenizer.pad_token_id or 0).eval()), tokenizer

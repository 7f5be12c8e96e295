"""One class for any encoder: token ids of texts laid end to end -> states of each token, at each layer.

Encoders of the families that our network computes run on it, without padding. Every other encoder runs
through transformers' `AutoModel`, padded to the longest text of the batch. Fine-tuning, probes and the
analysis see the same flat tensors in both cases.

Shapes: T tokens, N texts, E hidden size, B rows, L positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.model import ModernBertForSequenceClassification, ModernBertModel, hf
from clm_detour.model.families import architecture_of, is_known
from clm_detour.model.flops import flops_per_batch
from clm_detour.model.pretrained import (
    can_fill_masks,
    check_encoder,
    load_body,
    longest_input,
    without_load_warnings,
)
from clm_detour.model.weights import is_headless, read_shapes
from clm_detour.utils.errors import UserError

CLS, MEAN = "cls", "mean"
Ids = list[np.ndarray]  # token ids of each text with special tokens, int64


class Encoder(nn.Module):
    """A bidirectional encoder of any kind, in fp32. Its weights are named `network.*`.

    Attributes:
        packed: Whether it runs on our network, without padding.
        layers: The names of the layers: embeddings, 0, 1, ..., final_norm.
        hidden_size: E.
        dropout: Probability of dropout before a new output layer.
        longest: Number of tokens of the longest text that it can read, None if there is no limit.
    """

    packed: bool
    dropout: float

    def __init__(self, network: Any, pooling: str):
        super().__init__()
        self.network = network
        self.pooling = pooling
        self.hidden_size: int = network.config.hidden_size
        self.longest: int | None = longest_input(network.config)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers, in the order of `hidden_states`."""
        return ("embeddings", *map(str, range(self.network.config.num_hidden_layers)), "final_norm")

    def tokenize(self, texts: Sequence[str], max_tokens: int) -> Ids:
        """Return the ids of each text with special tokens, cut from the right to `max_tokens`."""
        raise NotImplementedError

    def forward(self, ids_T: Tensor, lengths: list[int]) -> Tensor:
        """Return the states of the last layer, (T, E), for the ids (T,) of N texts of these lengths."""
        raise NotImplementedError

    def hidden_states(self, ids_T: Tensor, lengths: list[int]) -> list[Tensor]:
        """Return the states of each of `layers`, (T, E) each, without gradients."""
        raise NotImplementedError

    def pool(self, states_TE: Tensor, lengths: list[int]) -> Tensor:
        """Return one vector for each text, (N, E): the state of its first token, or the mean of all."""
        if self.pooling == CLS:
            lengths_N = torch.tensor(lengths, device=states_TE.device)
            return states_TE[lengths_N.cumsum(0) - lengths_N]
        return torch.stack([text.mean(0) for text in states_TE.split(lengths)])

    def apply_head(self, states: Tensor) -> Tensor:
        """Return (..., E) after the model's pretrained prediction head, or unchanged if it has none."""
        return states

    def init_output_layer(self, layer: nn.Linear) -> None:
        """Initialize a new output layer as transformers initializes those of its classifiers."""
        raise NotImplementedError

    def flops(self, lengths: list[int], training: bool) -> int:
        """Return the floating-point operations of a forward, and in training those of its backward too."""
        raise NotImplementedError


class PackedEncoder(Encoder):
    """An encoder of a known family on our network, without padding.

    Where classifiers of documents have a head of their own (BERT's pooler), it follows the `cls` pooling, and
    new output layers stand on the states of tokens directly, as in transformers' classes.

    Args:
        path: Folder or hub id.
        pooling: `cls` or `mean`. None means what the model's config says.
        tokenizer: Folder or hub id of the tokenizer.
        with_head: Whether to open the prediction head too, which stands before a new output layer as in
            transformers' classifiers. If the folder has none, the head is initialized from torch's global
            random number generator.
    """

    packed = True

    def __init__(self, path: str, pooling: str | None, tokenizer: str, with_head: bool):
        with without_load_warnings():
            if with_head:
                network: Any = ModernBertForSequenceClassification.from_encoder(path, num_labels=1)
                network.classifier = nn.Identity()  # each task has its own output layer
            else:
                network = ModernBertModel.from_pretrained(path)
        network.causal = False  # whatever the folder says
        super().__init__(network, pooling or str(getattr(network.config, "classifier_pooling", CLS)))
        self.dropout: float = network.architecture.classifier_dropout
        self._one_head = network.architecture.one_head
        if with_head and not self._one_head and self.pooling != CLS:
            network.head = nn.Identity()  # a pooler reads the first token
        self._with_head = with_head
        self._tokenizer_path = tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return load_tokenizer(self._tokenizer_path)

    def tokenize(self, texts: Sequence[str], max_tokens: int) -> Ids:
        """See `Encoder`."""
        return tokenize(self._tokenizer, texts, max_tokens)

    def forward(self, ids_T: Tensor, lengths: list[int]) -> Tensor:
        """See `Encoder`."""
        return self.network.encode(ids_T[None], document_lengths=[lengths])[0]

    @torch.no_grad()
    def hidden_states(self, ids_T: Tensor, lengths: list[int]) -> list[Tensor]:
        """See `Encoder`."""
        each: list[Tensor] = []
        last, _ = self.network.encode(ids_T[None], document_lengths=[lengths], each=each)
        return [*each, last]

    def pool(self, states_TE: Tensor, lengths: list[int]) -> Tensor:
        """See `Encoder`."""
        pooled_NE = super().pool(states_TE, lengths)
        return self.network.head(pooled_NE) if self._with_head and not self._one_head else pooled_NE

    def apply_head(self, states: Tensor) -> Tensor:
        """See `Encoder`."""
        return self.network.head(states) if self._one_head else states

    def init_output_layer(self, layer: nn.Linear) -> None:
        """See `Encoder`."""
        self.network.init_output_layer(layer)

    def flops(self, lengths: list[int], training: bool) -> int:
        """See `Encoder`; exact, except that a new output layer is not counted."""
        return flops_per_batch(self.network.config, lengths, 0, causal=False, training=training).total


class PaddedEncoder(Encoder):
    """An `AutoModel` over padded rows. Under `cls` pooling it uses the model's own pooler, if there is one.

    Args:
        path: Folder or hub id.
        pooling: `cls` or `mean`. None means `cls`.
        tokenizer: The model's tokenizer.
    """

    packed = False

    def __init__(self, path: str, pooling: str | None, tokenizer: PreTrainedTokenizerBase):
        network = cast(Any, load_body(path))
        super().__init__(network, pooling or CLS)
        self.pooler = getattr(network, "pooler", None) if self.pooling == CLS else None
        network.pooler = None
        dropout = getattr(network.config, "classifier_dropout", None)
        self.dropout = getattr(network.config, "hidden_dropout_prob", 0.0) if dropout is None else dropout
        self._tokenizer = tokenizer
        self._pad: int = tokenizer.pad_token_id or 0

    def tokenize(self, texts: Sequence[str], max_tokens: int) -> Ids:
        """See `Encoder`."""
        encoded = self._tokenizer(list(texts), truncation=True, max_length=max_tokens)
        return [np.array(ids, dtype=np.int64) for ids in encoded["input_ids"]]

    def forward(self, ids_T: Tensor, lengths: list[int]) -> Tensor:
        """See `Encoder`."""
        rows_BL, mask_BL = self._rows(ids_T, lengths)
        return self.network(input_ids=rows_BL, attention_mask=mask_BL.long()).last_hidden_state[mask_BL]

    @torch.no_grad()
    def hidden_states(self, ids_T: Tensor, lengths: list[int]) -> list[Tensor]:
        """See `Encoder`. The last two are equal where the model has no final norm."""
        rows_BL, mask_BL = self._rows(ids_T, lengths)
        with _output_of(self._last_layer()) as found:
            output = self.network(input_ids=rows_BL, attention_mask=mask_BL.long(), output_hidden_states=True)
        states = [*output.hidden_states, output.last_hidden_state]
        if found:
            states[-2] = found[0]
        return [state[mask_BL] for state in states]

    def _rows(self, ids_T: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
        """Return padded rows (N, L), and a mask of the same shape that is False at padding."""
        rows = nn.utils.rnn.pad_sequence(ids_T.split(lengths), batch_first=True, padding_value=self._pad)
        lengths_N1 = torch.tensor(lengths, device=rows.device)[:, None]
        return rows, torch.arange(rows.shape[1], device=rows.device) < lengths_N1

    def _last_layer(self) -> nn.Module | None:
        """Return the last layer of a model that has just one list of as many modules as it has layers."""
        count = self.network.config.num_hidden_layers
        stacks = [m for m in self.network.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
        return stacks[0][-1] if len(stacks) == 1 else None

    def pool(self, states_TE: Tensor, lengths: list[int]) -> Tensor:
        """See `Encoder`."""
        pooled_NE = super().pool(states_TE, lengths)
        return pooled_NE if self.pooler is None else self.pooler(pooled_NE[:, None])

    def init_output_layer(self, layer: nn.Linear) -> None:
        """See `Encoder`."""
        self.network._init_weights(layer)

    def flops(self, lengths: list[int], training: bool) -> int:
        """See `Encoder`; counts attention and the matrices outside the embeddings, over padded rows."""
        embeddings = {
            id(p) for m in self.network.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
        }
        weights = sum(p.numel() for p in self.network.parameters() if p.ndim == 2 and id(p) not in embeddings)
        rows, length = len(lengths), max(lengths)
        layers = getattr(self.network.config, "num_hidden_layers", 0)
        forward = rows * length * (2 * weights + 4 * layers * self.hidden_size * length)
        return forward * (3 if training else 1)


@contextmanager
def _output_of(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    """Collect what a layer returns: transformers 5 puts the output of the final norm in its place."""
    found: list[Tensor] = []
    if layer is None:
        yield found
        return
    hook = layer.register_forward_hook(
        lambda _, __, output: found.append(output[0] if isinstance(output, tuple) else output)
    )
    try:
        yield found
    finally:
        hook.remove()


def output_layer(encoder: Encoder, outputs: int) -> nn.Linear:
    """Return a new output layer with this number of outputs."""
    layer = nn.Linear(encoder.hidden_size, outputs)
    encoder.init_output_layer(layer)
    return layer


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> Ids:
    """Return the ids of each text with special tokens, cut from the right to `max_tokens`."""
    ids = [text.astype(np.int64) for text in tokenizer.encode_batch(texts)]
    return [np.append(t[: max_tokens - 1], tokenizer.sep) if len(t) > max_tokens else t for t in ids]


def needs_fresh_head(path: str, config: Any) -> bool:
    """Return whether a model lacks the head on which classifiers stand, so that each run makes one.

    This concerns ModernBERT: classifiers of the other families have other heads than their masked models.

    Args:
        path: Folder or hub id.
        config: The model's config.

    Raises:
        UserError: If there are no weights in safetensors.
    """
    one_head = is_known(config.model_type) and architecture_of(config).one_head
    return one_head and is_headless(read_shapes(hf.fetch(path)))


def load_encoder(
    path: str, pooling: str | None = None, tokenizer: str | None = None, with_head: bool = True
) -> tuple[Encoder, PreTrainedTokenizerBase]:
    """Load any encoder, in fp32 and in evaluation mode, and its tokenizer.

    Args:
        path: Folder or hub id.
        pooling: `cls` or `mean`. None means what a ModernBERT's config says, and `cls` for others.
        tokenizer: Folder or hub id of the tokenizer. None means the model's own.
        with_head: Whether to load a ModernBERT's prediction head, for fine-tuning.

    Raises:
        UserError: If there is no such model, it is not an encoder, weights are missing, or there is no fast
            tokenizer.
    """
    logging.disable_progress_bar()  # transformers' own, for loading weights
    config, loaded = check_encoder(path, tokenizer)
    encoder: Encoder
    if is_known(config.model_type):
        encoder = PackedEncoder(path, pooling, tokenizer or path, with_head)
    else:
        encoder = PaddedEncoder(path, pooling, loaded)
    return encoder.eval(), loaded


def check_measurable(path: str, tokenizer: str | None = None) -> None:
    """Check, without reading weights, that the states of an encoder can be measured.

    Args:
        path: Folder or hub id.
        tokenizer: Folder or hub id of the tokenizer. None means the model's own.

    Raises:
        UserError: If there is no encoder, no weights in safetensors, or no tokenizer that fits it.
    """
    config, _ = check_encoder(path, tokenizer)
    if is_known(config.model_type):
        load_tokenizer(tokenizer or path)


def check_fills_masks(path: str, tokenizer: str | None = None) -> None:
    """Check, without reading weights, that the masked-LM loss of a model can be measured.

    Args:
        path: Folder or hub id.
        tokenizer: Folder or hub id of the tokenizer. None means the model's own.

    Raises:
        UserError: If its family is unknown, it has no masked-LM head, or no tokenizer that fits it.
    """
    hf.read_config(hf.fetch(path))
    check_measurable(path, tokenizer)
    if not can_fill_masks(path):
        raise UserError(
            f"{path} has no masked-LM head, so its predictions cannot be measured; give the masked model "
            "that it was made from."
        )

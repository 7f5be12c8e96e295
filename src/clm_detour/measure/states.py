"""Hidden states of any encoder, layer by layer: our packed network for every ModernBERT, `AutoModel` over padded rows for others.

An encoder's layers are `embeddings`, `0`, `1`, ... and `final_norm`. Of others than ModernBERT the last is `last_hidden_state`, which equals the
last layer where the model has no final norm. Attention is bidirectional; weights and arithmetic are fp32.

Shapes: N texts, T tokens, E hidden size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ModernBertConfig

from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.model import ModernBertModel, hf
from clm_detour.model.precision import best_device
from clm_detour.model.pretrained import (
    check_encoder,
    check_vocabulary,
    load_body,
    load_fast_tokenizer,
    longest_input,
    read_config,
    without_news,
)
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import Advance

BATCH_TOKENS = 4096  # in a forward, padding included
Ids = list[np.ndarray]


@dataclass(frozen=True)
class Encoder:
    """One model, as far as its states go.

    Args:
        layers: names, in order.
        packed: our own network, without padding.
        tokenize: texts and the most tokens of each -> their ids with special tokens, cut from the right.
        forward: ids of N texts -> of each layer (T, E), the texts end to end without padding.
    """

    layers: tuple[str, ...]
    hidden: int
    packed: bool
    tokenize: Callable[[Sequence[str], int], Ids]
    forward: Callable[[Ids], list[Tensor]]


def open_encoder(
    path: str | os.PathLike[str], device: torch.device | None = None, tokenizer: str | None = None
) -> Encoder:
    """Open a folder or hub id.

    Args:
        tokenizer: the folder or hub id of the tokenizer; None: the model's own.

    Raises:
        UserError: nothing there, weights are missing, the tokenizer is larger than the model, or it is no bidirectional encoder.
    """
    device, path = device or best_device(), str(path)
    config = read_config(path)
    if config.model_type == ModernBertConfig.model_type:
        return _packed(path, device, tokenizer or path)
    hf.check_kind(path, config.model_type)
    if config.is_encoder_decoder:
        raise UserError(f"{path} is an encoder-decoder, not an encoder; save its encoder alone.")
    return _padded(path, device, tokenizer or path)


def check_opens(path: str) -> None:
    """Refuse what `open_encoder` would refuse, as far as that can be known without the weights.

    Raises:
        UserError: see `open_encoder`.
    """
    config, _ = check_encoder(path)
    if config.model_type == ModernBertConfig.model_type:
        load_tokenizer(path)


def longest_text(path: str) -> int | None:
    """The most tokens that a model can read; None if there is no limit.

    Raises:
        UserError: there is no model.
    """
    return longest_input(read_config(path))


def _packed(path: str, device: torch.device, tokenizer_path: str) -> Encoder:
    with without_news():
        network = ModernBertModel.from_pretrained(path, causal=False)
    torch.nn.Module.to(network, device)
    tokenizer = load_tokenizer(tokenizer_path)
    check_vocabulary(path, network.config, tokenizer.tokenizer)

    @torch.no_grad()
    def forward(ids: Ids) -> list[Tensor]:
        flat = torch.from_numpy(np.concatenate(ids))[None].to(device)
        each: list[Tensor] = []
        final, _ = network.encode(flat, document_lengths=[[len(text) for text in ids]], each=each)
        return [*each, final]

    layers = _layer_names(network.config.num_hidden_layers)
    return Encoder(layers, network.config.hidden_size, True, partial(cut_to, tokenizer), forward)


def _padded(path: str, device: torch.device, tokenizer_path: str) -> Encoder:
    network: Any = load_body(path)
    tokenizer = load_fast_tokenizer(tokenizer_path)
    check_vocabulary(path, network.config, tokenizer)
    network.to(device).eval()
    last = _last_layer(network)
    pad = tokenizer.pad_token_id or 0

    def tokenize(texts: Sequence[str], max_tokens: int) -> Ids:
        encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens)
        return [np.array(ids, dtype=np.int64) for ids in encoded["input_ids"]]

    @torch.no_grad()
    def forward(ids: Ids) -> list[Tensor]:
        rows = torch.full((len(ids), max(map(len, ids))), pad)
        mask = torch.zeros_like(rows)
        for row, real, text in zip(rows, mask, ids, strict=True):
            row[: len(text)], real[: len(text)] = torch.from_numpy(text), 1
        rows, mask = rows.to(device), mask.to(device)
        with _output_of(last) as seen:
            output = network(input_ids=rows, attention_mask=mask, output_hidden_states=True)
        states = [*output.hidden_states, output.last_hidden_state]
        if seen:
            states[-2] = seen[0]
        return [state[mask.bool()] for state in states]

    _check_bidirectional(path, forward, tokenize(["One two three four five six."], 16)[0])
    names = _layer_names(network.config.num_hidden_layers)
    return Encoder(names, network.config.hidden_size, False, tokenize, forward)


def _last_layer(network: Any) -> nn.Module | None:
    """The last of the layers, where a model has one list of as many modules as layers."""
    count = network.config.num_hidden_layers
    stacks = [m for m in network.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    return stacks[0][-1] if len(stacks) == 1 else None


@contextmanager
def _output_of(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    """What a layer gives; transformers 5 puts the final norm in the place of the last layer's hidden state."""
    seen: list[Tensor] = []
    if layer is None:
        yield seen
        return
    hook = layer.register_forward_hook(
        lambda _, __, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    try:
        yield seen
    finally:
        hook.remove()


def cut_to(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> Ids:
    """Ids of each text with special tokens, int64, cut from the right."""
    ids = [text.astype(np.int64) for text in tokenizer.encode_batch(texts)]
    return [np.append(t[: max_tokens - 1], tokenizer.sep) if len(t) > max_tokens else t for t in ids]


def _layer_names(layers: int) -> tuple[str, ...]:
    return ("embeddings", *map(str, range(layers)), "final_norm")


def _check_bidirectional(path: str, forward: Callable[[Ids], list[Tensor]], ids: np.ndarray) -> None:
    """The first token's state must change with the last token."""
    other = ids.copy()
    other[-1] = ids[1]
    if torch.equal(forward([ids])[-1][0], forward([other])[-1][0]):
        raise UserError(
            f"{path} is no encoder: its tokens do not see what is right of them. Compare bidirectional models only."
        )


def batches_of(lengths: Sequence[int]) -> Iterator[np.ndarray]:
    """Numbers of texts of about equal length, at most `BATCH_TOKENS` tokens a batch when padded to its longest."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > BATCH_TOKENS:
            yield order[start:end]
            start = end


def read_states(
    encoder: Encoder, ids: Ids, places: Sequence[np.ndarray] | None, advance: Advance
) -> tuple[list[Tensor], list[Tensor]]:
    """Run an encoder over texts.

    Args:
        ids: of each text.
        places: of each text the tokens whose own states are kept, as many of each; None: of no text.
        advance: told of each text.

    Returns:
        Of each layer the mean over a text's tokens (special ones too), (N, E); and the states of `places`, (N * places, E), in
        the order of the texts. float64, on the CPU.
    """
    n, layers = len(ids), len(encoder.layers)
    offsets = [np.empty(0, np.int64)] * n if places is None else places
    means = [torch.empty(n, encoder.hidden, dtype=torch.float64) for _ in range(layers)]
    single = [torch.empty(n, len(offsets[0]), encoder.hidden, dtype=torch.float64) for _ in range(layers)]
    for numbers in batches_of([len(text) for text in ids]):
        chosen = [ids[i] for i in numbers]
        lengths = torch.tensor([len(text) for text in chosen])
        states = encoder.forward(chosen)
        starts = (lengths.cumsum(0) - lengths).tolist()
        kept = np.array([start + offsets[i] for start, i in zip(starts, numbers, strict=True)])
        for layer, state in enumerate(states):
            state = state.double().cpu()
            means[layer][numbers] = torch.segment_reduce(state, "mean", lengths=lengths, axis=0)
            single[layer][numbers] = state[kept]
        advance(len(numbers))
    return means, [state.flatten(0, 1) for state in single]

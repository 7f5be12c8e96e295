"""A larger vocabulary for a network: rows of the embedding and of the decoder for added tokens."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from clm_detour.model import hf
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.weights import DECODER, EMBEDDING

DECODER_BIAS = "decoder.bias"


@torch.no_grad()
def with_vocabulary(
    network: ModernBertForPretraining, pieces: Mapping[int, Sequence[int]], size: int
) -> ModernBertForPretraining:
    """Return a network with rows for added tokens, each the mean of the rows of its pieces.

    This holds for the embedding, for decoder weights that are not tied to it, and for the decoder's bias.
    Rows after the old ones that belong to no token are the mean of all old rows. Everything else is
    unchanged, so a text without added tokens has the same logits in the old columns.

    Args:
        pieces: Id of each added token -> ids of the tokens that it replaces.
        size: Number of rows, at least that of the network.
    """
    config = copy.deepcopy(network.config)
    config.vocab_size = size
    larger = hf.without_weights(ModernBertForPretraining, config, network._attention_asked)
    weights = {
        name: grown(weight, pieces, size) if name in (EMBEDDING, DECODER, DECODER_BIAS) else weight
        for name, weight in network.state_dict().items()
    }
    hf.fill(larger, weights, "the network", None)
    larger.causal = network.causal
    return larger.train(network.training)


def grown(weight: Tensor, pieces: Mapping[int, Sequence[int]], size: int) -> Tensor:
    """Return the rows of a weight, (size, ...), with those of added tokens."""
    old = weight.float()
    new = old.new_empty((size, *old.shape[1:]))
    new[: len(old)] = old
    new[len(old) :] = old.mean(0)
    for id, parts in pieces.items():
        new[id] = old[list(parts)].mean(0)
    return new.to(weight.dtype)

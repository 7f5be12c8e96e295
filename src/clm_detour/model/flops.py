"""Floating-point operations of a batch, exactly: a multiply-add in a matrix product counts two, everything else nothing.

Attention is counted over the pairs of tokens that see each other, whatever a back end computes beside them.
The backward pass is twice the forward: each product gives two, one for either factor. What a kernel computes again
(attention probabilities, checkpointed layers) is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import ModernBertConfig

from clm_detour.model.documents import Documents
from clm_detour.model.layout import layout_of
from clm_detour.model.modernbert import ModernBertForPretraining


@dataclass(frozen=True)
class Flops:
    """Operations of one batch.

    Args:
        linear: projections and MLPs of the layers.
        attention: queries times keys, and probabilities times values.
        head: prediction head and vocabulary, at predicted positions only.
    """

    linear: int
    attention: int
    head: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.linear + self.attention + self.head


@dataclass(frozen=True)
class Frozen:
    """What is not trained: layers by number, the embeddings (with a decoder tied to them), the prediction head (with one that is not)."""

    layers: frozenset[int] = frozenset()
    embeddings: bool = False
    head: bool = False

    @classmethod
    def of(cls, network: ModernBertForPretraining) -> Frozen:
        """What asks for no gradient in `network`."""
        body = network.model
        return cls(
            frozenset(number for number, layer in enumerate(body.layers) if not _asks(layer)),
            not _asks(body.embeddings),
            not _asks(network.head),
        )


NOTHING = Frozen()


def flops_per_batch(
    config: ModernBertConfig,
    documents: Documents | Iterable[int],
    predicted: int,
    causal: bool,
    training: bool = True,
    frozen: Frozen = NOTHING,
) -> Flops:
    """Count a forward, and in training its backward too.

    Args:
        documents: or their lengths in tokens.
        predicted: positions with a label.
        frozen: has no gradients of weights, and below the lowest trained layer no backward at all.
    """
    layout = layout_of(config)
    lengths = documents.lengths if isinstance(documents, Documents) else list(documents)
    hidden, inner, layers = config.hidden_size, config.intermediate_size, layout.layers
    pairs = {
        local: sum(seen_pairs(length, causal, layout.window if local else None) for length in lengths)
        for local in (True, False)
    }
    lowest = min(set(range(layers)) - frozen.layers, default=layers) if frozen.embeddings else 0
    weights, linear, attention = 4 * hidden * hidden + 3 * hidden * inner, 0, 0
    for layer in range(layers):
        through = training and layer >= lowest  # the gradient goes through
        linear += (1 + through + (training and layer not in frozen.layers)) * weights
        attention += (1 + 2 * through) * pairs[layout.is_local(layer)]
    if training and frozen.embeddings and lowest == 0:
        linear -= 3 * hidden * hidden  # nobody wants the gradient of the first projection's input
    decoder_frozen = frozen.embeddings if config.tie_word_embeddings else frozen.head
    head = (1 + training + (training and not frozen.head)) * hidden
    head += (1 + training + (training and not decoder_frozen)) * config.vocab_size
    return Flops(
        linear=2 * linear * sum(lengths), attention=4 * hidden * attention, head=2 * hidden * head * predicted
    )


def _asks(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def seen_pairs(length: int, causal: bool, window: int | None) -> int:
    """Pairs (query, key) of a document of this length in which the query sees the key."""
    reach = length - 1 if window is None else min(window, length - 1)
    one_side = length * reach - reach * (reach + 1) // 2
    return length + one_side * (1 if causal else 2)

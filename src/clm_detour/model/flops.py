"""Count the floating-point operations of a batch: two for each multiply-add in a matrix product.

Nothing else is counted. Attention is counted over the pairs of tokens that see each other, whatever else a
back end computes. The backward pass counts twice as much as the forward, since each product has the gradients
of two factors. What a kernel computes again (attention probabilities, checkpointed layers) is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from clm_detour.model.documents import Documents
from clm_detour.model.families import architecture_of
from clm_detour.model.modernbert import ModernBertForPretraining


@dataclass(frozen=True)
class Flops:
    """Operations of one batch.

    Args:
        linear: Projections and MLPs of the layers.
        attention: Products of queries and keys, and of probabilities and values.
        head: Prediction head and vocabulary, at predicted positions only.
    """

    linear: int
    attention: int
    head: int

    @property
    def total(self) -> int:
        """The sum of all operations."""
        return self.linear + self.attention + self.head


@dataclass(frozen=True)
class Frozen:
    """The parts of a network that are not trained.

    Args:
        layers: Numbers of the frozen layers.
        embeddings: Whether the embeddings are frozen, with a decoder that is tied to them.
        head: Whether the prediction head is frozen, with a decoder that is not tied.
    """

    layers: frozenset[int] = frozenset()
    embeddings: bool = False
    head: bool = False

    @classmethod
    def of(cls, network: ModernBertForPretraining) -> Frozen:
        """Return the parts of `network` that require no gradient."""
        body = network.model
        return cls(
            frozenset(number for number, layer in enumerate(body.layers) if not _asks(layer)),
            not _asks(body.embeddings),
            not _asks(network.head),
        )


NOTHING = Frozen()


def flops_per_batch(
    config: Any,
    documents: Documents | Iterable[int],
    predicted: int,
    causal: bool,
    training: bool = True,
    frozen: Frozen = NOTHING,
) -> Flops:
    """Count the operations of a forward, and in training those of its backward as well.

    Args:
        config: The config of a model of any family.
        documents: The documents, or their lengths in tokens.
        predicted: Number of positions with a label.
        causal: Whether the mask is causal.
        training: Whether there is a backward.
        frozen: The parts without gradients. Below the lowest trained layer there is no backward at all.
    """
    architecture = architecture_of(config)
    lengths = documents.lengths if isinstance(documents, Documents) else list(documents)
    hidden, layers = architecture.hidden, architecture.layers
    pairs = {
        local: sum(seen_pairs(length, causal, architecture.window if local else None) for length in lengths)
        for local in (True, False)
    }
    lowest = min(set(range(layers)) - frozen.layers, default=layers) if frozen.embeddings else 0
    weights, linear, attention = architecture.layer_weights, 0, 0
    for layer in range(layers):
        through = training and layer >= lowest  # the gradient passes through the layer
        linear += (1 + through + (training and layer not in frozen.layers)) * weights
        attention += (1 + 2 * through) * pairs[architecture.is_local(layer)]
    if training and frozen.embeddings and lowest < layers and (lowest == 0 or not architecture.pre_norm):
        linear -= 3 * hidden * hidden  # no norm is trained below the first projection
    decoder_frozen = frozen.embeddings if architecture.tied else frozen.head
    head = (1 + training + (training and not frozen.head)) * hidden
    head += (1 + training + (training and not decoder_frozen)) * architecture.vocabulary
    return Flops(
        linear=2 * linear * sum(lengths), attention=4 * hidden * attention, head=2 * hidden * head * predicted
    )


def _asks(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def seen_pairs(length: int, causal: bool, window: int | None) -> int:
    """Return the number of pairs (query, key) of a document in which the query sees the key."""
    reach = length - 1 if window is None else min(window, length - 1)
    one_side = length * reach - reach * (reach + 1) // 2
    return length + one_side * (1 if causal else 2)

"""Floating-point operations of a batch, exactly: a multiply-add in a matrix product counts two, everything else nothing.

Attention is counted over the pairs of tokens that see each other, whatever a back end computes beside them.
The backward pass is twice the forward: each product gives two, one for either factor. What a kernel computes again
(attention probabilities, checkpointed layers) is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transformers import ModernBertConfig

from clm_detour.model.documents import Documents
from clm_detour.model.layout import layout_of


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


def flops_per_batch(
    config: ModernBertConfig,
    documents: Documents | Iterable[int],
    predicted: int,
    causal: bool,
    training: bool = True,
) -> Flops:
    """Count a forward, and in training its backward too.

    Args:
        documents: or their lengths in tokens.
        predicted: positions with a label.
    """
    layout = layout_of(config)
    lengths = documents.lengths if isinstance(documents, Documents) else list(documents)
    hidden, inner, layers = config.hidden_size, config.intermediate_size, layout.layers
    local = sum(layout.is_local(layer) for layer in range(layers))
    pairs = (layers - local) * sum(seen_pairs(length, causal, None) for length in lengths)
    pairs += local * sum(seen_pairs(length, causal, layout.window) for length in lengths)
    weights = 4 * hidden * hidden + 3 * hidden * inner
    passes = 3 if training else 1
    return Flops(
        linear=passes * 2 * layers * weights * sum(lengths),
        attention=passes * 4 * hidden * pairs,
        head=passes * 2 * hidden * (hidden + config.vocab_size) * predicted,
    )


def seen_pairs(length: int, causal: bool, window: int | None) -> int:
    """Pairs (query, key) of a document of this length in which the query sees the key."""
    reach = length - 1 if window is None else min(window, length - 1)
    one_side = length * reach - reach * (reach + 1) // 2
    return length + one_side * (1 if causal else 2)

"""A linear-chain CRF (Lafferty, McCallum and Pereira 2001) over BIOUL tags, for entities that may be nested.

Tags are O, and B, I, L and U of each type: first, inner and last word of an entity, and its only word. Inside
an entity another one of the same type may begin, so after any tag of a type each tag of that type may follow.
A sequence leaves a type, for O or another type, only after its L or U, and enters one only by its B or U.

Shapes: N sequences, W words, G tags.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

OUTSIDE = 0
BEGIN, INSIDE, LAST, UNIT = range(4)  # type i has the tags 1 + 4i to 4 + 4i, in this order
FORBIDDEN = -1e4  # the score of a transition that may not occur, finite so that gradients are


class BioulCrf(nn.Module):
    """Scores of transitions between tags, and the marginal probabilities that they give.

    Args:
        types: Number of types of entities.
    """

    def __init__(self, types: int):
        super().__init__()
        tags = 1 + 4 * types
        self.transitions = nn.Parameter(torch.zeros(tags, tags))
        self.first = nn.Parameter(torch.zeros(tags))
        self.last = nn.Parameter(torch.zeros(tags))
        pairs, first, last = allowed_tags(types)
        self.register_buffer("forbidden_pairs", ~pairs, persistent=False)
        self.register_buffer("forbidden_first", ~first, persistent=False)
        self.register_buffer("forbidden_last", ~last, persistent=False)

    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scores of transitions (G, G), of first tags (G,) and of last tags (G,)."""
        return (
            self.transitions.masked_fill(self.get_buffer("forbidden_pairs"), FORBIDDEN),
            self.first.masked_fill(self.get_buffer("forbidden_first"), FORBIDDEN),
            self.last.masked_fill(self.get_buffer("forbidden_last"), FORBIDDEN),
        )

    def log_marginals(self, emissions_NWG: Tensor, lengths_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each tag of each word, (N, W, G), and the log-partition, (N,).

        The forward and the backward algorithm, in fp32. The values of words after the end of a sequence have
        no meaning.

        Args:
            lengths_N: Number of words of each sequence, at least 1.
        """
        emissions = emissions_NWG.float()
        transitions, first, last = self.scores()
        words = emissions.shape[1]
        going = torch.arange(words, device=emissions.device)[:, None, None] < lengths_N[:, None]
        forward = [first + emissions[:, 0]]
        for word in range(1, words):
            step = (forward[-1][:, :, None] + transitions).logsumexp(1) + emissions[:, word]
            forward.append(torch.where(going[word], step, forward[-1]))
        backward = [last.expand_as(emissions[:, 0])]
        for word in range(words - 1, 0, -1):
            step = (transitions + (emissions[:, word] + backward[-1])[:, None]).logsumexp(2)
            backward.append(torch.where(going[word], step, backward[-1]))
        partition_N = (forward[-1] + last).logsumexp(1)
        both = torch.stack(forward, 1) + torch.stack(backward[::-1], 1)
        return both - partition_N[:, None, None], partition_N


def allowed_tags(types: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return whether a tag may follow another, (from G, to G), and whether it may be first and last, (G,)."""
    tags = torch.arange(1 + 4 * types)
    type_of = torch.where(tags == OUTSIDE, -1, (tags - 1) // 4)
    place = (tags - 1) % 4
    may_enter = (tags == OUTSIDE) | (place == BEGIN) | (place == UNIT)
    may_leave = (tags == OUTSIDE) | (place == LAST) | (place == UNIT)
    pairs = (type_of[:, None] == type_of) | (may_leave[:, None] & may_enter)
    return pairs, may_enter, may_leave

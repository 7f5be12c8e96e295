"""A biaffine head over spans of words: every span has one type or none.

The head is that of Yu, Bohnet and Poesio (2020, arXiv 2005.07150): two projections of each word, one as the
start and one as the end of a span, then a bilinear and a linear form for each type, with cross-entropy over
the types and none. Spans are accepted in the order of their scores. A span that crosses a better one is
dropped, a span inside another one is kept.

Shapes: W words, O words at which a span may start, D widths, E hidden size, H size of a projection, C types
and none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clm_detour.evaluate.finetune.batch import WordSpan

NONE = 0
PROJECTION = 150
DROPOUT = 0.2  # of the projections


class BiaffineHead(nn.Module):
    """A head that scores spans by their first and last words. See `SpanHead`."""

    widest: ClassVar[int] = 32
    on_pretrained_head: ClassVar[bool] = True

    def __init__(self, hidden_size: int, labels: int):
        super().__init__()
        types = 1 + labels
        self.start, self.end = (
            nn.Sequential(nn.Linear(hidden_size, PROJECTION), nn.GELU(), nn.Dropout(DROPOUT))
            for _ in range(2)
        )
        self.bilinear = nn.Parameter(torch.empty(types, PROJECTION, PROJECTION))
        nn.init.normal_(self.bilinear, std=1 / PROJECTION)
        self.linear = nn.Linear(2 * PROJECTION, types)

    def forward(self, words: Sequence[Tensor], starts: Sequence[int], widest: int) -> list[Tensor]:
        """See `SpanHead`."""
        return [self.scores(words_WE, own, widest) for words_WE, own in zip(words, starts, strict=True)]

    def scores(self, words_WE: Tensor, starts: int, widest: int) -> Tensor:
        """Return (O, D, C) from (W, E), for the first `starts` words and widths 1 to `widest`."""
        start_OH, end_WH = self.start(words_WE[:starts]), self.end(words_WE)
        last_OD = torch.arange(starts, device=words_WE.device)[:, None] + torch.arange(
            widest, device=words_WE.device
        )
        end_ODH = end_WH[last_OD.clamp_max(len(words_WE) - 1)]
        bilinear_OCH = torch.einsum("oh,chk->ock", start_OH, self.bilinear)
        of_start, of_end = self.linear.weight.chunk(2, dim=1)
        linear_ODC = (F.linear(start_OH, of_start)[:, None] + F.linear(end_ODH, of_end)) + self.linear.bias
        return linear_ODC + torch.einsum("och,odh->odc", bilinear_OCH, end_ODH)

    def loss(
        self, logits: Sequence[Tensor], wanted: Sequence[Tensor], real: Sequence[Tensor], words: int
    ) -> Tensor:
        """Return the cross-entropy over all spans, in nats per word."""
        total = torch.zeros((), device=logits[0].device)
        for logits_ODC, wanted_OD, real_OD in zip(logits, wanted, real, strict=True):
            total = total + F.cross_entropy(logits_ODC[real_OD].float(), wanted_OD[real_OD], reduction="sum")
        return total / words

    def choose(self, logits_ODC: Tensor, real_OD: Tensor, offset: int) -> list[WordSpan]:
        """Return the spans of a type, by score, without those that cross one of a higher score."""
        score_OD, kind_OD = logits_ODC.float().softmax(-1).max(-1)
        chosen = ((kind_OD != NONE) & real_OD).nonzero().tolist()
        chosen.sort(key=lambda place: -float(score_OD[place[0], place[1]]))
        kept: list[WordSpan] = []
        for start, width in chosen:
            first, last = offset + start, offset + start + width
            if not any(a < first <= b < last or first < a <= last < b for a, b, _ in kept):
                kept.append((first, last, int(kind_OD[start, width])))
        return kept

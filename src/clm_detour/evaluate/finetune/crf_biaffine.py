"""A head over spans of words: a gated BiLSTM, a BIOUL CRF and a biaffine scorer, whose scores are added.

It follows the head of the first author's benchmark (tabib, github.com/Rian-T/tabib, models/bert_span_ner.py,
read at commit 1664939), which follows nlstruct (github.com/percevalw/nlstruct). Every span has a logit for
every type, the sum of two scores:

- of the CRF: the smallest of three log-probabilities that come from its marginals: the first word begins an
  entity of the type (B or U), the last word ends one (L or U), and all words are in one (their sum);
- of the biaffine scorer: the scaled product of two projections, of the first and of the last word.

The loss is the binary cross-entropy of these logits, so it trains both parts together; the CRF has no loss of
its own, because nested entities are no single path of tags. A span whose best type has a probability above
0.5 is an entity of that type, unless it shares a word with one of the same type that is more probable.

Shapes: N windows, W words, O words at which a span may start, D widths, E hidden size, S size of the LSTM, C
types, H size of a projection, G tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from clm_detour.evaluate.finetune.batch import WordSpan
from clm_detour.evaluate.finetune.crf import BEGIN, LAST, UNIT, BioulCrf

LSTM_SIZE, LSTM_LAYERS = 400, 3
PROJECTION = 64
DROPOUT = 0.4
LARGEST = -1e-8  # log-probability: below zero, so that its gradient is defined


class CrfBiaffineHead(nn.Module):
    """A head that adds the scores of a CRF and of a biaffine scorer. See `SpanHead`."""

    widest: ClassVar[int] = 40
    on_pretrained_head: ClassVar[bool] = False

    def __init__(self, hidden_size: int, labels: int):
        super().__init__()
        self.labels = labels
        self.project = nn.Linear(hidden_size, LSTM_SIZE)
        self.layers = nn.ModuleList(GatedLstm() for _ in range(LSTM_LAYERS))
        self.drop = nn.Dropout(DROPOUT)
        self.tags = nn.Linear(LSTM_SIZE, 1 + 4 * labels)
        self.crf = BioulCrf(labels)
        self.begin, self.end = (nn.Linear(LSTM_SIZE, labels * PROJECTION) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, words: Sequence[Tensor], starts: Sequence[int], widest: int) -> list[Tensor]:
        """See `SpanHead`. It computes in fp32 under autocast too."""
        lengths_N = torch.tensor([len(words_WE) for words_WE in words])
        with torch.autocast(words[0].device.type, enabled=False):
            padded_NWE = pad_sequence([words_WE.float() for words_WE in words], batch_first=True)
            states_NWS = F.gelu(self.project(padded_NWE))
            for layer in self.layers:
                states_NWS = layer(states_NWS, lengths_N)
            scores = self.crf_scores(states_NWS, lengths_N, widest) + self.biaffine_scores(states_NWS, widest)
        return [scores_WDC[:own] for scores_WDC, own in zip(scores, starts, strict=True)]

    def crf_scores(self, states_NWS: Tensor, lengths_N: Tensor, widest: int) -> Tensor:
        """Return (N, W, D, C) log-probabilities that a span is an entity by the marginals of its tags."""
        emissions_NWG = self.tags(self.drop(states_NWS))
        marginals_NWG, _ = self.crf.log_marginals(emissions_NWG, lengths_N.to(states_NWS.device))
        each_NWC4 = marginals_NWG[..., 1:].unflatten(-1, (self.labels, 4))
        begin_NWC = each_NWC4[..., [BEGIN, UNIT]].logsumexp(-1)
        end_NWC = each_NWC4[..., [LAST, UNIT]].logsumexp(-1)
        within_NWDC = by_width(each_NWC4.logsumexp(-1), widest).cumsum(2).clamp_max(LARGEST)
        ends = torch.minimum(begin_NWC[:, :, None], by_width(end_NWC, widest))
        return torch.minimum(within_NWDC, ends)

    def biaffine_scores(self, states_NWS: Tensor, widest: int) -> Tensor:
        """Return (N, W, D, C) products of the projections of the first and the last word."""
        dropped = self.drop(states_NWS)
        begin_NWCH, end_NWCH = (
            layer(dropped).unflatten(-1, (self.labels, PROJECTION)) for layer in (self.begin, self.end)
        )
        words = states_NWS.shape[1]
        end_NWCH = F.pad(end_NWCH, (0, 0, 0, 0, 0, widest - 1))
        products = [(begin_NWCH * end_NWCH[:, d : d + words]).sum(-1) for d in range(widest)]
        return torch.stack(products, 2) / PROJECTION**0.5 + self.bias

    def loss(
        self, logits: Sequence[Tensor], wanted: Sequence[Tensor], real: Sequence[Tensor], words: int
    ) -> Tensor:
        """Return the binary cross-entropy in nats, the mean over all spans and types of the batch."""
        chosen = torch.cat([logits_ODC[real_OD] for logits_ODC, real_OD in zip(logits, real, strict=True)])
        kinds = torch.cat([wanted_OD[real_OD] for wanted_OD, real_OD in zip(wanted, real, strict=True)])
        targets = F.one_hot(kinds, 1 + self.labels)[:, 1:].float()
        return F.binary_cross_entropy_with_logits(chosen.float(), targets)

    def choose(self, logits_ODC: Tensor, real_OD: Tensor, offset: int) -> list[WordSpan]:
        """Return the spans above 0.5, by probability, without those that overlap one of the same type."""
        best_OD, kind_OD = logits_ODC.float().max(-1)
        chosen = ((best_OD > 0) & real_OD).nonzero().tolist()
        chosen.sort(key=lambda place: (-float(best_OD[place[0], place[1]]), -place[1]))
        kept: list[WordSpan] = []
        for start, width in chosen:
            first, last, kind = offset + start, offset + start + width, 1 + int(kind_OD[start, width])
            if not any(first <= b and a <= last and kind == other for a, b, other in kept):
                kept.append((first, last, kind))
        return kept


class GatedLstm(nn.Module):
    """A bidirectional LSTM layer whose output replaces its input as far as a gate says, then a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(LSTM_SIZE, LSTM_SIZE // 2, batch_first=True, bidirectional=True)
        self.gate = nn.Linear(LSTM_SIZE, 1)
        self.norm = nn.LayerNorm(LSTM_SIZE)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, states_NWS: Tensor, lengths_N: Tensor) -> Tensor:
        """Return (N, W, S); the states of padding do not change those of words."""
        packed = pack_padded_sequence(states_NWS, lengths_N, batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        output = self.drop(output)
        share = self.gate(output).sigmoid()
        return cast(Tensor, self.norm(states_NWS * (1 - share) + output * share))


def by_width(x_NWC: Tensor, widest: int) -> Tensor:
    """Return (N, W, D, C): for each word the values of it and the words after it, 0 beyond the end."""
    padded = F.pad(x_NWC, (0, 0, 0, widest - 1))
    return padded.unfold(1, widest, 1).movedim(3, 2)

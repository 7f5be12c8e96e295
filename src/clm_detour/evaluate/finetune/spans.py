"""Entities that may lie in each other: every span of words, up to a width, gets a type or none from a biaffine head.

The head is that of Yu, Bohnet and Poesio (2020, arXiv 2005.07150): two projections of each word, as a span's start and as its end, a
bilinear form and a linear one for each type, cross-entropy over the types and none. Spans are read in the order of their scores;
one that crosses a better one is left out, one inside another is kept. The widest span is the widest in training. A discontinuous
entity is learned as all from its start to its end, and counted as inexact.

Shapes: W words, O words at which a span may start, D widths, H size of a projection, C types and none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from clm_detour.evaluate.finetune.batch import Batch, Example, count_windows
from clm_detour.evaluate.finetune.tagging import touched
from clm_detour.evaluate.finetune.windows import WordEncoder, words_of
from clm_detour.evaluate.tasks.task import Document, Entity
from clm_detour.measure.encoder import Encoder

NONE = 0
PROJECTION = 150
DROPOUT = 0.2  # of the projections
WIDEST = 32  # words; spans beyond are counted as inexact
WordSpan = tuple[int, int, int]  # first word, last word, 1 + type


def word_spans(document: Document, labels: Sequence[str]) -> tuple[list[WordSpan], int]:
    """The entities in words, and how many of them words do not say exactly."""
    words = words_of(document)
    found: dict[tuple[int, int], int] = {}
    inexact = 0
    for entity in document.entities:
        first, last = touched(words, entity.start, entity.end)
        if not 0 < last - first <= WIDEST or (first, last - 1) in found:
            inexact += 1
            continue
        found[first, last - 1] = 1 + labels.index(entity.label)
        exact = (words[first][0], words[last - 1][1]) == (entity.start, entity.end)
        inexact += not exact or bool(entity.fragments)
    return [(*span, kind) for span, kind in found.items()], inexact


class Spans(nn.Module):
    """The problem.

    Args:
        widest: words in the widest span that is looked at.
    """

    def __init__(self, labels: Sequence[str], encoder: Encoder, widest: int):
        super().__init__()
        self.labels = labels
        self.encoder = encoder
        self.widest = widest
        types = 1 + len(labels)
        self.head = BiaffineHead(encoder.hidden_size, types)

    @staticmethod
    def examples(
        documents: Sequence[Document],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
    ) -> tuple[list[Example], dict[str, int]]:
        """Windows with their spans; a span belongs to the window to which its first word belongs."""
        spans = [word_spans(document, labels) for document in documents]
        inexact = sum(count for _, count in spans)
        examples = []
        for window in WordEncoder(tokenizer).windows(documents, max_tokens):
            (begin, end), last = window.owned, window.first + len(window.starts)
            own = [span for span in spans[window.document][0] if begin <= span[0] < end]
            inside = [(a - begin, b - begin, kind) for a, b, kind in own if b < last]
            inexact += len(own) - len(inside)
            places = window.starts[begin - window.first :]
            target = torch.tensor(inside, dtype=torch.long).reshape(-1, 3)
            examples.append(Example(window.document, window.ids, places, target, begin, end - begin))
        return examples, {**count_windows(examples), "inexact_entities": inexact}

    def logits(self, batch: Batch) -> list[Tensor]:
        """For each window (O, D, C); the score of a span past the window's end means nothing."""
        states_TE = self.encoder(batch.ids, batch.lengths)
        words_WE = self.encoder.apply_head(states_TE[batch.places])
        windows = words_WE.split([len(example.places) for example in batch.examples])
        return [
            self.head(words, example.owned, self.widest)
            for words, example in zip(windows, batch.examples, strict=True)
        ]

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy over all spans, in nats a word."""
        total = torch.zeros((), device=batch.device)
        for logits_ODC, example in zip(self.logits(batch), batch.examples, strict=True):
            wanted_OD = torch.zeros(logits_ODC.shape[:2], dtype=torch.long, device=batch.device)
            for first, last, kind in example.target.tolist():
                if last - first < self.widest:
                    wanted_OD[first, last - first] = kind
            real_OD = inside(logits_ODC, len(example.places))
            total = total + F.cross_entropy(logits_ODC[real_OD].float(), wanted_OD[real_OD], reduction="sum")
        return total / max(sum(example.owned for example in batch.examples), 1)

    def answers(self, batch: Batch) -> list[list[WordSpan]]:
        """The spans of each window, in its document's words."""
        found = []
        for logits_ODC, example in zip(self.logits(batch), batch.examples, strict=True):
            real_OD = inside(logits_ODC, len(example.places))
            found.append(best_spans(logits_ODC, real_OD, example.first))
        return found

    def read(
        self, documents: Sequence[Document], examples: Sequence[Example], answers: Sequence[list[WordSpan]]
    ) -> list[Document]:
        """The windows' spans -> documents."""
        spans: list[list[WordSpan]] = [[] for _ in documents]
        for example, answer in zip(examples, answers, strict=True):
            spans[example.document] += answer
        return [
            dataclasses.replace(document, entities=self.entities(document, spans[place]), labels=())
            for place, document in enumerate(documents)
        ]

    def entities(self, document: Document, spans: Sequence[WordSpan]) -> tuple[Entity, ...]:
        """Spans in words -> entities."""
        words = words_of(document)
        found = (Entity(self.labels[kind - 1], words[a][0], words[b][1]) for a, b, kind in spans)
        return tuple(sorted(found, key=lambda entity: (entity.start, entity.end, entity.label)))


class BiaffineHead(nn.Module):
    """Scores of spans from their first and last words."""

    def __init__(self, hidden_size: int, types: int):
        super().__init__()
        self.start, self.end = (
            nn.Sequential(nn.Linear(hidden_size, PROJECTION), nn.GELU(), nn.Dropout(DROPOUT))
            for _ in range(2)
        )
        self.bilinear = nn.Parameter(torch.empty(types, PROJECTION, PROJECTION))
        nn.init.normal_(self.bilinear, std=1 / PROJECTION)
        self.linear = nn.Linear(2 * PROJECTION, types)

    def forward(self, words_WE: Tensor, starts: int, widest: int) -> Tensor:
        """(W, E) -> (O, D, C) for the first `starts` words and widths 1 to `widest`."""
        start_OH, end_WH = self.start(words_WE[:starts]), self.end(words_WE)
        last_OD = torch.arange(starts, device=words_WE.device)[:, None] + torch.arange(
            widest, device=words_WE.device
        )
        end_ODH = end_WH[last_OD.clamp_max(len(words_WE) - 1)]
        bilinear_OCH = torch.einsum("oh,chk->ock", start_OH, self.bilinear)
        of_start, of_end = self.linear.weight.chunk(2, dim=1)
        linear_ODC = (F.linear(start_OH, of_start)[:, None] + F.linear(end_ODH, of_end)) + self.linear.bias
        return linear_ODC + torch.einsum("och,odh->odc", bilinear_OCH, end_ODH)


def inside(logits_ODC: Tensor, words: int) -> Tensor:
    """(O, D): whether a span of this start and width ends among the window's words."""
    starts, widest, _ = logits_ODC.shape
    starts_O1 = torch.arange(starts, device=logits_ODC.device)[:, None]
    return starts_O1 + torch.arange(widest, device=logits_ODC.device) < words


def best_spans(logits_ODC: Tensor, real_OD: Tensor, offset: int) -> list[WordSpan]:
    """Spans whose best type is not none, the surest first, without those that cross a surer one."""
    score_OD, kind_OD = logits_ODC.float().softmax(-1).max(-1)
    chosen = ((kind_OD != NONE) & real_OD).nonzero().tolist()
    chosen.sort(key=lambda place: -float(score_OD[place[0], place[1]]))
    kept: list[WordSpan] = []
    for start, width in chosen:
        first, last = offset + start, offset + start + width
        if not any(a < first <= b < last or first < a <= last < b for a, b, _ in kept):
            kept.append((first, last, int(kind_OD[start, width])))
    return kept

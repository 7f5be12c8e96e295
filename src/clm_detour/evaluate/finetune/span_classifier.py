"""Recognition of nested entities: a head scores every span of words, up to a width, for every type.

The greatest width is that of the widest entity in training. A discontinuous entity is learned as the span
from its start to its end, and counted as inexact.

Shapes: W words, O words at which a span may start, D widths, E hidden size, C scores of a span.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from clm_detour.evaluate.finetune.batch import Batch, Example, WordSpan, count_windows
from clm_detour.evaluate.finetune.biaffine import BiaffineHead
from clm_detour.evaluate.finetune.crf_biaffine import CrfBiaffineHead
from clm_detour.evaluate.finetune.tagger import touched
from clm_detour.evaluate.finetune.windows import WordEncoder, words_of
from clm_detour.evaluate.tasks.task import Document, Entity
from clm_detour.measure.encoder import Encoder

HEADS: dict[str, type[BiaffineHead] | type[CrfBiaffineHead]] = {
    "biaffine": BiaffineHead,
    "crf_biaffine": CrfBiaffineHead,
}


class SpanHead(Protocol):
    """A head that scores spans of words.

    Attributes:
        widest: Width in words beyond which an entity is counted as inexact.
        on_pretrained_head: Whether it stands on the encoder's pretrained prediction head, if there is one.
    """

    widest: ClassVar[int]
    on_pretrained_head: ClassVar[bool]

    def __call__(self, words: Sequence[Tensor], starts: Sequence[int], widest: int) -> list[Tensor]:
        """Return (O, D, C) for the words (W, E) of each window, for spans from its first `starts` words.

        The score of a span beyond the window's end has no meaning.
        """

    def loss(
        self, logits: Sequence[Tensor], wanted: Sequence[Tensor], real: Sequence[Tensor], words: int
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            logits: (O, D, C) of each window.
            wanted: (O, D) of each window, 0 or 1 + type.
            real: (O, D) of each window, whether the span is in it.
            words: Number of words at which a span may start in all windows.
        """

    def choose(self, logits_ODC: Tensor, real_OD: Tensor, offset: int) -> list[WordSpan]:
        """Return the spans that are entities, in words of the document, whose word `offset` is the first."""


def word_spans(document: Document, labels: Sequence[str], widest: int) -> tuple[list[WordSpan], int]:
    """Return the entities as spans of words, and the number of those that are not exact.

    Args:
        widest: Wider entities are left out, and count as not exact.
    """
    words = words_of(document)
    found: dict[tuple[int, int], int] = {}
    inexact = 0
    for entity in document.entities:
        first, last = touched(words, entity.start, entity.end)
        if not 0 < last - first <= widest or (first, last - 1) in found:
            inexact += 1
            continue
        found[first, last - 1] = 1 + labels.index(entity.label)
        exact = (words[first][0], words[last - 1][1]) == (entity.start, entity.end)
        inexact += not exact or bool(entity.fragments)
    return [(*span, kind) for span, kind in found.items()], inexact


class SpanClassifier(nn.Module):
    """An encoder with a head over spans.

    Args:
        widest: Greatest width of a span, in words.
    """

    def __init__(self, labels: Sequence[str], encoder: Encoder, head: SpanHead, widest: int):
        super().__init__()
        self.labels = labels
        self.encoder = encoder
        self.widest = widest
        self.head: Any = head

    @staticmethod
    def examples(
        documents: Sequence[Document],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        by_line: bool = False,
        widest: int = BiaffineHead.widest,
    ) -> tuple[list[Example], dict[str, int]]:
        """Return the windows with the spans whose first word they own, and counts."""
        spans = [word_spans(document, labels, widest) for document in documents]
        inexact = sum(count for _, count in spans)
        examples = []
        for window in WordEncoder(tokenizer).windows(documents, max_tokens, by_line):
            (begin, end), last = window.owned, window.first + len(window.starts)
            own = [span for span in spans[window.document][0] if begin <= span[0] < end]
            inside = [(a - begin, b - begin, kind) for a, b, kind in own if b < last]
            inexact += len(own) - len(inside)
            places = window.starts[begin - window.first :]
            target = torch.tensor(inside, dtype=torch.long).reshape(-1, 3)
            examples.append(Example(window.document, window.ids, places, target, begin, end - begin))
        return examples, {**count_windows(examples, by_line), "inexact_entities": inexact}

    def logits(self, batch: Batch) -> list[Tensor]:
        """Return (O, D, C) for each window. The score of a span beyond the window's end has no meaning."""
        words_WE = self.encoder(batch.ids, batch.lengths)[batch.places]
        if self.head.on_pretrained_head:
            words_WE = self.encoder.apply_head(words_WE)
        windows = words_WE.split([len(example.places) for example in batch.examples])
        return cast(
            "list[Tensor]", self.head(windows, [example.owned for example in batch.examples], self.widest)
        )

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the head."""
        logits = self.logits(batch)
        wanted, real = [], []
        for logits_ODC, example in zip(logits, batch.examples, strict=True):
            wanted_OD = torch.zeros(logits_ODC.shape[:2], dtype=torch.long, device=batch.device)
            for first, last, kind in example.target.tolist():
                if last - first < self.widest:
                    wanted_OD[first, last - first] = kind
            wanted.append(wanted_OD)
            real.append(inside(logits_ODC, len(example.places)))
        words = max(sum(example.owned for example in batch.examples), 1)
        return cast(Tensor, self.head.loss(logits, wanted, real, words))

    def predict(self, batch: Batch) -> list[list[WordSpan]]:
        """Return the spans of each window, in words of its document."""
        return [
            self.head.choose(logits_ODC, inside(logits_ODC, len(example.places)), example.first)
            for logits_ODC, example in zip(self.logits(batch), batch.examples, strict=True)
        ]

    def read(
        self, documents: Sequence[Document], examples: Sequence[Example], outputs: Sequence[list[WordSpan]]
    ) -> list[Document]:
        """Return the documents with the entities that the spans of their windows give."""
        spans: list[list[WordSpan]] = [[] for _ in documents]
        for example, output in zip(examples, outputs, strict=True):
            spans[example.document] += output
        return [
            dataclasses.replace(document, entities=self.entities(document, spans[place]), labels=())
            for place, document in enumerate(documents)
        ]

    def entities(self, document: Document, spans: Sequence[WordSpan]) -> tuple[Entity, ...]:
        """Return the entities of spans of words."""
        words = words_of(document)
        found = (Entity(self.labels[kind - 1], words[a][0], words[b][1]) for a, b, kind in spans)
        return tuple(sorted(found, key=lambda entity: (entity.start, entity.end, entity.label)))


def inside(logits_ODC: Tensor, words: int) -> Tensor:
    """Return (O, D): whether a span with this start and width ends within the window."""
    starts, widest, _ = logits_ODC.shape
    starts_O1 = torch.arange(starts, device=logits_ODC.device)[:, None]
    return starts_O1 + torch.arange(widest, device=logits_ODC.device) < words

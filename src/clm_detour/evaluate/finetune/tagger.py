"""Recognition of entities that do not overlap: a BIO tag for each word, predicted from its first sub-word.

Words are tagged B-TYPE where an entity begins, I-TYPE inside it, O elsewhere, and entities are read back in
the same way; an I that does not continue an entity begins one. An entity that begins or ends inside a word is
tagged by the words that it touches, so it cannot be found exactly. Of entities that share a word the longest
is kept, the first one of equal length. Both cases are counted.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from clm_detour.evaluate.finetune.batch import Batch, Example, count_windows
from clm_detour.evaluate.finetune.windows import Span, WordEncoder, words_of
from clm_detour.evaluate.tasks.task import Document, Entity
from clm_detour.measure.encoder import Encoder, output_layer
from clm_detour.model.classification_loss import mean_cross_entropy

OUTSIDE = 0


def tag_words(document: Document, labels: Sequence[str]) -> tuple[list[int], int]:
    """Return the tags of the words, and the number of entities that they do not represent exactly.

    Tag 0 is O, 1 + 2i is B and 2 + 2i is I of type i.
    """
    words = words_of(document)
    tags = [OUTSIDE] * len(words)
    inexact = 0
    for entity in sorted(document.entities, key=lambda e: (e.start - e.end, e.start)):
        first, last = touched(words, entity.start, entity.end)
        if first == last or any(tags[first:last]):
            inexact += 1
            continue
        kind = labels.index(entity.label)
        tags[first:last] = [1 + 2 * kind, *[2 + 2 * kind] * (last - first - 1)]
        exact = (words[first][0], words[last - 1][1]) == (entity.start, entity.end) and not entity.fragments
        inexact += not exact
    return tags, inexact


def touched(words: Sequence[Span], start: int, end: int) -> Span:
    """Return the range of words that share a character with [start, end)."""
    first = bisect_right(words, start, key=lambda word: word[1])
    last = bisect_left(words, end, key=lambda word: word[0])
    return first, max(first, last)


def read_tags(document: Document, tags: Sequence[int], labels: Sequence[str]) -> Document:
    """Return the document with the entities that the tags of its words give."""
    words, found = words_of(document), []
    open_kind, first = None, 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        kind = None if tag == OUTSIDE else (tag - 1) // 2
        continues = kind is not None and kind == open_kind and tag % 2 == 0
        if open_kind is not None and not continues:
            found.append(Entity(labels[open_kind], words[first][0], words[place - 1][1]))
        if not continues:
            first = place
        open_kind = kind
    return dataclasses.replace(document, entities=tuple(found), labels=())


class EntityTagger(nn.Module):
    """An encoder with a linear head on each word's first sub-word."""

    def __init__(self, labels: Sequence[str], encoder: Encoder):
        super().__init__()
        self.labels = labels
        self.encoder = encoder
        self.drop = nn.Dropout(encoder.dropout)
        self.head = output_layer(encoder, 1 + 2 * len(labels))

    @staticmethod
    def examples(
        documents: Sequence[Document],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        by_line: bool = False,
    ) -> tuple[list[Example], dict[str, int]]:
        """Return the windows with their words' tags, and counts of what was cut or cannot be represented."""
        tagged = [tag_words(document, labels) for document in documents]
        examples = [
            Example(
                window.document,
                window.ids,
                window.owned_starts,
                torch.tensor(tagged[window.document][0][slice(*window.owned)]),
            )
            for window in WordEncoder(tokenizer).windows(documents, max_tokens, by_line)
        ]
        inexact = sum(count for _, count in tagged)
        return examples, {**count_windows(examples, by_line), "inexact_entities": inexact}

    def logits(self, batch: Batch) -> Tensor:
        """Return (words, tags)."""
        states_TE = self.encoder(batch.ids, batch.lengths)
        return self.head(self.drop(self.encoder.apply_head(states_TE[batch.places])))

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean over the batch's words, in nats."""
        return mean_cross_entropy(self.logits(batch), batch.join_targets())

    def predict(self, batch: Batch) -> list[list[int]]:
        """Return the tags of each window's words."""
        counts = [len(example.places) for example in batch.examples]
        return [tags.tolist() for tags in self.logits(batch).argmax(-1).split(counts)]

    def read(
        self, documents: Sequence[Document], examples: Sequence[Example], outputs: Sequence[list[int]]
    ) -> list[Document]:
        """Return the documents with the entities that the tags of their windows give."""
        tags: list[list[int]] = [[] for _ in documents]
        for example, output in zip(examples, outputs, strict=True):
            tags[example.document] += output
        return [read_tags(document, tags[place], self.labels) for place, document in enumerate(documents)]

"""What a task is to everything that trains on it, scores it and tabulates it. Only readers know file formats.

A model's answer is a `Document` too: the same text with the entities or labels that the model gives it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from clm_detour.config.protocols import Kind, Protocol

SPLITS = ("train", "validation", "test")
Splits = dict[str, list["Document"]]  # by the names in SPLITS
Counts = Mapping[str, int]  # of things that were left out, by what they are and why
F1 = ("micro_f1", "macro_f1", "weighted_f1")
METRICS: dict[Kind, tuple[str, ...]] = {  # scores that may stand in the table; see evaluate/metrics.py
    "entities": (*F1, "micro_precision", "micro_recall", "tag_f1"),
    "nested_entities": (*F1, "micro_precision", "micro_recall"),
    "single_label": (*F1, "positive_f1", "accuracy", "auroc"),
    "multi_label": (*F1, "samples_f1", "accuracy", "auroc"),
}


WORD = re.compile(r"\w+|[^\w\s]")


def find_words(text: str) -> tuple[tuple[int, int], ...]:
    """The words of a text that its data set does not divide: runs of letters and digits, and single signs."""
    return tuple(match.span() for match in WORD.finditer(text))


@dataclass(frozen=True)
class Entity:
    """A labelled piece of a document's text, characters [start, end).

    Args:
        fragments: the pieces of a discontinuous entity, in order; empty for one that is all of [start, end).
    """

    label: str
    start: int
    end: int
    fragments: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Document:
    """One example.

    Args:
        id: unique in its split; of a part of a longer document that document's id, `#` and a number; where the files name none, the
            file's name, `:` and a number.
        words: character spans of the words that are tagged, in order (entity tasks).
        entities: sorted by start, end, label.
        labels: exactly one for `single_label`, any number for `multi_label`.
        left_out: annotations that a flat task cannot hold, since they overlap one that it keeps or are in several pieces.
        reasons: what else of the file is not in the document, one entry for each, like "annotations by rename".
    """

    id: str
    text: str
    words: tuple[tuple[int, int], ...] = ()
    entities: tuple[Entity, ...] = ()
    labels: tuple[str, ...] = ()
    left_out: tuple[Entity, ...] = ()
    reasons: tuple[str, ...] = field(default=(), compare=False, repr=False)


class Reading(NamedTuple):
    """What a task's files hold.

    Args:
        skipped: what was left out whole, before the splits were made.
    """

    splits: Splits
    skipped: Counts = MappingProxyType({})


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        labels: entity types, or classes, in a fixed order; empty for those that the data has (`load` fills them in).
        metric: which of the scores stands in the table.
        read: the folder of the data set -> its splits.
        folders: other names of the folder in which the data set lies; the task's own name always is one.
        elsewhere: it does not lie in a folder below that of all tasks, as a dataset of the hub or one that is made here.
        negative: the class that stands for none of the others; `positive_*` scores leave it out.
        published: counts to compare with, such as {"train.documents": 5424}.
        licence: under which the data set is handed round.
        obtain: where to get it, one sentence.
        disjoint: no document that the files name may be in two splits.
        skipped: what the reader left out whole; `load` fills it in. See `left_out.py`.
    """

    name: str
    language: str
    kind: Kind
    labels: tuple[str, ...]
    metric: str
    read: Callable[[Path], Reading]
    folders: tuple[str, ...] = ()
    elsewhere: bool = False
    negative: str | None = None
    protocol: Protocol = field(default_factory=Protocol)
    published: Mapping[str, int] = field(default_factory=dict)
    licence: str = ""
    obtain: str = ""
    disjoint: bool = True
    skipped: Counts = field(default_factory=dict)

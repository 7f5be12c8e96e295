"""The task and its documents, as training, metrics and tables see them. Only the readers know file formats.

The predictions of a model are documents, too: the same texts with the entities or labels that the model
predicts.
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
Counts = Mapping[str, int]  # number of left-out things by reason, see left_out.py
F1 = ("micro_f1", "macro_f1", "weighted_f1")
METRICS: dict[Kind, tuple[str, ...]] = {  # scores that can be in the tables; see evaluate/metrics.py
    "entities": (*F1, "micro_precision", "micro_recall", "tag_f1"),
    "nested_entities": (*F1, "micro_precision", "micro_recall"),
    "single_label": (*F1, "positive_f1", "accuracy", "auroc"),
    "multi_label": (*F1, "samples_f1", "accuracy", "auroc"),
}
WORD = re.compile(r"\w+|[^\w\s]")


def find_words(text: str) -> tuple[tuple[int, int], ...]:
    """Return the spans of the words of a text: runs of letters and digits, and single other characters."""
    return tuple(match.span() for match in WORD.finditer(text))


@dataclass(frozen=True)
class Entity:
    """A labelled piece of a document's text, characters [start, end).

    Args:
        fragments: Pieces of a discontinuous entity, in order. Empty if the entity covers all of [start, end).
    """

    label: str
    start: int
    end: int
    fragments: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Document:
    """One example of a task.

    Args:
        id: Unique in its split. A part of a longer document has the id of that document, `#` and a number. A
            document without a name in the files has the name of its file, `:` and a number.
        words: Character spans of the words that are tagged, in order (entity tasks).
        entities: Sorted by start, end and label.
        labels: Exactly one for `single_label`, any number for `multi_label`.
        left_out: Annotations that a flat task cannot hold, because they overlap one that it keeps or are in
            several pieces.
        reasons: A reason for each other part of the file that the document lacks, like "annotations by
            rename".
    """

    id: str
    text: str
    words: tuple[tuple[int, int], ...] = ()
    entities: tuple[Entity, ...] = ()
    labels: tuple[str, ...] = ()
    left_out: tuple[Entity, ...] = ()
    reasons: tuple[str, ...] = field(default=(), compare=False, repr=False)


class Reading(NamedTuple):
    """The content of a task's files.

    Args:
        skipped: Counts of rows, documents and labels that were skipped before the splits were drawn.
    """

    splits: Splits
    skipped: Counts = MappingProxyType({})


@dataclass(frozen=True)
class Task:
    """A task.

    Args:
        labels: Entity types or classes in a fixed order. If empty, `load` fills in the labels of the data.
        metric: The score in the tables.
        read: Function from the folder of the data set to its content.
        folders: Names of the data set's folder, besides the name of the task.
        elsewhere: The data is not in the folder of all tasks, like a dataset of the hub.
        negative: Class that stands for none of the others. The `positive_*` scores leave it out.
        published: Counts to compare with, such as {"train.documents": 5424}.
        licence: Licence under which the data set is distributed.
        obtain: A sentence that says where to get the data set.
        disjoint: No document that the files name may be in two splits.
        skipped: Counts of what the reader skipped; `load` fills them in. See left_out.py.
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

    @property
    def selects_by(self) -> str:
        """The validation score that chooses the round whose weights answer the test split."""
        return self.protocol.select_by or self.metric

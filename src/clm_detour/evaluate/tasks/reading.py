"""Turn the examples of a file format into documents of a task, with all checks of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from clm_detour.config.protocols import Kind
from clm_detour.evaluate.formats.format import Annotation, Example, Format, Fragments, trimmed
from clm_detour.evaluate.tasks.splits import hold_out, most_frequent
from clm_detour.evaluate.tasks.task import SPLITS, Document, Entity, Reading, find_words
from clm_detour.utils.errors import UserError

LONGEST_SHOWN = 40  # characters of a label in a message
REMEDY = "set `overlaps: longest` to keep the longest, or `kind: nested_entities` to keep all."
Overlaps = Literal["error", "longest", "last"]


@dataclass(frozen=True)
class Reader:
    """The `read` function of a task. It uses the first format that finds files in the folder.

    Args:
        labels: Labels of the task. If empty, all labels of the data are allowed.
        rename: Label in the files -> label of the task, or None for a label that the task leaves out.
        overlaps: If entities of a flat task overlap: "error" raises an error; "longest" keeps the longest one
            (the first of equally long ones); "last" keeps the one that begins last (the last in the file of
            those that begin together).
        held_out: Split -> share of the documents of `train` that become this split, for data sets without it.
        most_frequent: Number of labels to keep, by the number of documents in all splits that have them.
            Documents without any of these labels are left out.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    formats: tuple[Format, ...]
    rename: Mapping[str, str | None] = field(default_factory=dict)
    overlaps: Overlaps = "error"
    held_out: Mapping[str, float] = field(default_factory=dict)
    most_frequent: int | None = None

    def __call__(self, folder: Path) -> Reading:
        """Return the splits of the task.

        Raises:
            UserError: If a split is missing or something in the files is wrong. The message names the place.
        """
        skipped: Counter[str] = Counter()
        stored = {name: self.split(folder, name, skipped) for name in SPLITS if name not in self.held_out}
        if self.most_frequent is not None:
            stored, rare = most_frequent(stored, self.most_frequent)
            skipped.update(rare)
        return Reading(hold_out(self.held_out, stored), skipped)

    def format_of(self, folder: Path) -> Format | None:
        """Return the first format that finds the training split in a folder."""
        return next((one for one in self.formats if one.find(folder, "train")), None)

    def split(self, folder: Path, name: str, skipped: Counter[str]) -> list[Document]:
        """Return the documents of a split; add the counts of skipped rows to `skipped`."""
        chosen = self.format_of(folder)
        files = chosen.find(folder, name) if chosen else []
        if chosen is None or not files:
            wanted = (chosen or self.formats[0]).pattern(name)
            raise UserError(
                f"{folder} has no {name} split of {self.name} (no file {wanted or 'is named for it'}); "
                "get the data set again, set `files` to where it is, or draw it from train with `held_out`."
            )
        documents = []
        for example in (one for file in files for one in chosen.examples(file, name)):
            if example.text.strip():
                documents.append(self.document(example))
            elif example.annotations:
                raise UserError(f"{example.place} has annotations but no text; get the data set again.")
            else:
                skipped.update(example.left_out or ["documents without text"])
        if not documents:
            raise UserError(f"{folder} has no documents in the {name} split of {self.name}.")
        twice = next((id for id, count in Counter(one.id for one in documents).items() if count > 1), None)
        if twice is not None:
            raise UserError(f"{folder} has two documents {twice} in the {name} split; ids must differ.")
        return documents

    def document(self, example: Example) -> Document:
        """Return an example as a document of the task."""
        if self.kind in ("single_label", "multi_label"):
            return self.classified_document(example)
        words = example.words
        if words is None:
            words = find_words(example.text)
        found = [
            replace(annotation, label=label, fragments=checked_pieces(annotation, example.text))
            for annotation in example.annotations
            if (label := self.label(annotation.label, annotation.place)) is not None
        ]
        renamed = ("annotations by rename",) * (len(example.annotations) - len(found))
        kept, left_out = (found, []) if self.kind == "nested_entities" else self.flat(found)
        return Document(
            example.id,
            example.text,
            words,
            entities(kept),
            left_out=entities(left_out),
            reasons=example.left_out + renamed,
        )

    def classified_document(self, example: Example) -> Document:
        """Return an example as a document with labels, in the order of the task."""
        known = [self.label(label, example.place) for label in example.labels]
        found = {label for label in known if label is not None}
        if self.kind == "single_label" and len(found) != 1:
            raise UserError(
                f"{example.place} has {len(found)} labels, but a document of {self.name} has exactly one."
            )
        labels = tuple(sorted(found, key=self.labels.index if self.labels else None))
        renamed = ("labels by rename",) * known.count(None)
        return Document(example.id, example.text, labels=labels, reasons=example.left_out + renamed)

    def label(self, raw: str, place: str) -> str | None:
        """Return the task's name for a label of the files, or None for a label that the task leaves out."""
        if not raw.strip():
            raise UserError(f"{place} has an annotation without a type; correct it.")
        label = self.rename.get(raw, raw)
        if label is not None and self.labels and label not in self.labels:
            known = ", ".join(dict.fromkeys([*self.labels, *self.rename]))
            raise UserError(f"{place}: {shown(raw)} is not a label of {self.name}; it has {known}.")
        return label

    def flat(self, found: Sequence[Annotation]) -> tuple[list[Annotation], list[Annotation]]:
        """Divide annotations into those that are kept, of which no two overlap, and the other ones."""
        kept: list[Annotation] = []
        left_out: list[Annotation] = []
        for annotation in sorted(found, key=longest_first) if self.overlaps != "last" else last_first(found):
            other = next((one for one in kept if overlap(one, annotation)), None)
            if other is None and len(annotation.fragments) == 1:
                kept.append(annotation)
            elif self.overlaps == "error":
                problem = (
                    f"overlaps {other.label} ({other.place})" if other is not None else "is in several pieces"
                )
                raise UserError(
                    f"{annotation.place}: {annotation.label} {problem}, but {self.name} is flat; {REMEDY}"
                )
            else:
                left_out.append(annotation)
        return kept, left_out


def longest_first(annotation: Annotation) -> tuple[int, int]:
    """Return a sort key. Sorting is stable, so the first of two equal spans in the file stays first."""
    start, end = annotation.fragments[0][0], annotation.fragments[-1][1]
    return start - end, start


def last_first(found: Sequence[Annotation]) -> list[Annotation]:
    """Sort annotations by their start, the last one first.

    Of those that begin together, the last one in the file comes first.
    """
    return sorted(found, key=lambda annotation: annotation.fragments[0][0])[::-1]


def overlap(one: Annotation, other: Annotation) -> bool:
    """Return whether the extents of two annotations share a character."""
    return one.fragments[0][0] < other.fragments[-1][1] and other.fragments[0][0] < one.fragments[-1][1]


def checked_pieces(annotation: Annotation, text: str) -> Fragments:
    """Return the pieces of an annotation in order, and check them.

    Pieces with only white space between them are joined, because BRAT cuts annotations at line breaks. White
    space at the ends of a piece is removed.

    Raises:
        UserError: If pieces are empty, overlap or lie outside the text, or if the text differs from the
            annotated words.
    """
    pieces = sorted(annotation.fragments)
    if pieces[-1][1] > len(text):
        raise UserError(
            f"{annotation.place}: {annotation.label} ends at {pieces[-1][1]}, past the end of the "
            f"text ({len(text)})."
        )
    bounds = [bound for piece in pieces for bound in piece]
    if bounds != sorted(bounds) or any(start == end for start, end in pieces):
        raise UserError(f"{annotation.place}: {annotation.label} at {bounds} is empty or overlaps itself.")
    words = " ".join(text[start:end] for start, end in annotation.fragments)
    # White space may differ: line breaks inside an annotation are written as spaces.
    if annotation.text is not None and "".join(words.split()) != "".join(annotation.text.split()):
        raise UserError(
            f"{annotation.place}: the text at {bounds} ({len(words)} characters) is not the annotated text "
            f"of the file ({len(annotation.text)} characters)."
        )
    found = [trimmed(text, *piece) for piece in joined(text, pieces)]
    if not found:
        raise UserError(f"{annotation.place}: {annotation.label} at {bounds} is only white space.")
    return tuple(found)


def joined(text: str, pieces: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join pieces that have only white space between them, and drop pieces of white space."""
    found: list[tuple[int, int]] = []
    for start, end in pieces:
        if not text[start:end].strip():
            continue
        if found and not text[found[-1][1] : start].strip():
            start = found.pop()[0]
        found.append((start, end))
    return found


def shown(label: str) -> str:
    """Return a label for a message; only its length if it may be the text of a document."""
    return repr(label) if len(label) <= LONGEST_SHOWN else f"a cell of {len(label)} characters"


def entities(annotations: Iterable[Annotation]) -> tuple[Entity, ...]:
    """Return annotations as entities, sorted by start, end and label."""
    found = (
        Entity(
            one.label,
            one.fragments[0][0],
            one.fragments[-1][1],
            one.fragments if len(one.fragments) > 1 else (),
        )
        for one in annotations
    )
    return tuple(sorted(found, key=lambda one: (one.start, one.end, one.label, one.fragments)))

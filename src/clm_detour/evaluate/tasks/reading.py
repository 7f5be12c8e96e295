"""From what stands in files to documents that a task can be trained and scored on; every check of the data is here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from clm_detour.config.protocols import Kind
from clm_detour.evaluate.formats.form import Annotation, Example, Form, Fragments, trimmed
from clm_detour.evaluate.tasks.splits import hold_out, most_frequent
from clm_detour.evaluate.tasks.task import SPLITS, Document, Entity, Reading, find_words
from clm_detour.utils.errors import UserError

LONGEST_SHOWN = 40  # characters of a label
Overlaps = Literal["error", "longest", "last"]


@dataclass(frozen=True)
class Reader:
    """A task's `read`: the first of its forms that the folder has files of.

    Args:
        labels: of the task; empty for whatever there is.
        rename: a label as files have it -> the task's, or None for one that is no part of the task.
        overlaps: in a flat task, an error; or of entities that overlap one is kept: the longest (of equally long ones the first), or the
            one that begins last (of those that begin together the last in the file).
        held_out: split -> share of the documents of `train` that become it, for sets without it.
        most_frequent: so many labels only, by documents in all splits; documents without any are left out.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    forms: tuple[Form, ...]
    rename: Mapping[str, str | None] = field(default_factory=dict)
    overlaps: Overlaps = "error"
    held_out: Mapping[str, float] = field(default_factory=dict)
    most_frequent: int | None = None

    def __call__(self, folder: Path) -> Reading:
        """Return the splits of a task.

        Raises:
            UserError: a split is missing, or something in the files is wrong; says where.
        """
        skipped: Counter[str] = Counter()
        stored = {name: self.split(folder, name, skipped) for name in SPLITS if name not in self.held_out}
        if self.most_frequent is not None:
            stored, rare = most_frequent(stored, self.most_frequent)
            skipped.update(rare)
        return Reading(hold_out(self.held_out, stored), skipped)

    def form(self, folder: Path) -> Form | None:
        """The form in which the training split lies in a folder."""
        return next((form for form in self.forms if form.find(folder, "train")), None)

    def split(self, folder: Path, name: str, skipped: Counter[str]) -> list[Document]:
        """Return one split; adds what is no document to `skipped`."""
        form = self.form(folder)
        files = form.find(folder, name) if form else []
        if form is None or not files:
            wanted = form or self.forms[0]
            raise UserError(
                f"{folder} has no {name} split of {self.name} (no file {wanted.pattern(name) or 'is named for it'}); get the data set "
                "again, say where it is with `files`, or draw it from train with `held_out`."
            )
        documents = []
        for example in (one for file in files for one in form.examples(file, name)):
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
        """What the task makes of an example."""
        if self.kind in ("single_label", "multi_label"):
            return self.classified(example)
        words = example.words
        if words is None:
            words = find_words(example.text)
        found = [
            replace(annotation, label=label, fragments=checked(annotation, example.text))
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

    def classified(self, example: Example) -> Document:
        """Return a document with its labels, in the task's order."""
        known = [self.label(label, example.place) for label in example.labels]
        found = {label for label in known if label is not None}
        if self.kind == "single_label" and len(found) != 1:
            raise UserError(f"{example.place} has {len(found)} labels, but {self.name} gives exactly one.")
        labels = tuple(sorted(found, key=self.labels.index if self.labels else None))
        renamed = ("labels by rename",) * known.count(None)
        return Document(example.id, example.text, labels=labels, reasons=example.left_out + renamed)

    def label(self, raw: str, place: str) -> str | None:
        """The task's label, or None for one that is no part of it."""
        if not raw.strip():
            raise UserError(f"{place} has an annotation without a type; correct it.")
        label = self.rename.get(raw, raw)
        if label is not None and self.labels and label not in self.labels:
            known = ", ".join(dict.fromkeys([*self.labels, *self.rename]))
            raise UserError(
                f"{place}: {shown(raw)} is no label of {self.name}; it has {known}{self.unquoted(raw)}."
            )
        return label

    def unquoted(self, raw: str) -> str:
        """Return a hint where labels seem to be words that YAML takes for true and false."""
        if raw.lower() not in YAML_BOOLEANS or not {"True", "False"} & {*self.labels}:
            return ""
        return (
            "; put its labels in quotes, since YAML reads yes, no, on and off without them as true and false"
        )

    def flat(self, found: Sequence[Annotation]) -> tuple[list[Annotation], list[Annotation]]:
        """Annotations of which no two overlap, and the others."""
        kept: list[Annotation] = []
        left_out: list[Annotation] = []
        for annotation in sorted(found, key=longest_first) if self.overlaps != "last" else last_first(found):
            other = next((one for one in kept if overlap(one, annotation)), None)
            if other is None and len(annotation.fragments) == 1:
                kept.append(annotation)
            elif self.overlaps == "error":
                raise UserError(
                    f"{annotation.place}: {reason(annotation, other)}, but {self.name} is flat; {REMEDY}"
                )
            else:
                left_out.append(annotation)
        return kept, left_out


YAML_BOOLEANS = {"yes", "no", "on", "off", "true", "false", "y", "n"}
REMEDY = "set `overlaps: longest` to keep the longest, or `kind: nested_entities` to keep all."


def reason(annotation: Annotation, other: Annotation | None) -> str:
    """Why an annotation cannot stand in a flat task."""
    if other is None:
        return f"{annotation.label} is in several pieces"
    return f"{annotation.label} overlaps {other.label} ({other.place})"


def longest_first(annotation: Annotation) -> tuple[int, int]:
    """A key to sort by; sorting is stable, so of equal spans the first in the file stays first."""
    start, end = annotation.fragments[0][0], annotation.fragments[-1][1]
    return start - end, start


def last_first(found: Sequence[Annotation]) -> list[Annotation]:
    """The one that begins last, and of those that begin together the last in the file, before the others."""
    return sorted(found, key=lambda annotation: annotation.fragments[0][0])[::-1]


def overlap(one: Annotation, other: Annotation) -> bool:
    """Whether their extents share a character."""
    return one.fragments[0][0] < other.fragments[-1][1] and other.fragments[0][0] < one.fragments[-1][1]


def checked(annotation: Annotation, text: str) -> Fragments:
    """Return the pieces in order, once they lie in the text, apart from each other, on the words that the file says.

    Pieces with only white space between them are one, as BRAT cuts an annotation at a line break; white space at the ends of a piece does not belong to it.
    """
    pieces = sorted(annotation.fragments)
    if pieces[-1][1] > len(text):
        raise UserError(
            f"{annotation.place}: {annotation.label} ends at {pieces[-1][1]}, past the end of the text ({len(text)})."
        )
    bounds = [bound for piece in pieces for bound in piece]
    if bounds != sorted(bounds) or any(start == end for start, end in pieces):
        raise UserError(f"{annotation.place}: {annotation.label} at {bounds} is empty or overlaps itself.")
    words = " ".join(text[start:end] for start, end in annotation.fragments)
    if annotation.text is not None and squeezed(words) != squeezed(annotation.text):
        raise UserError(
            f"{annotation.place}: the text at {bounds} ({len(words)} characters) is not what the file says is there "
            f"({len(annotation.text)} characters)."
        )
    found = [trimmed(text, *piece) for piece in joined(text, pieces)]
    if not found:
        raise UserError(f"{annotation.place}: {annotation.label} at {bounds} is white space only.")
    return tuple(found)


def joined(text: str, pieces: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the pieces that hold more than white space; those with only white space between them are one."""
    found: list[tuple[int, int]] = []
    for start, end in pieces:
        if not text[start:end].strip():
            continue
        if found and not text[found[-1][1] : start].strip():
            start = found.pop()[0]
        found.append((start, end))
    return found


def shown(label: str) -> str:
    """A label for a message; what is longer than labels are may be text from a wrong column."""
    return repr(label) if len(label) <= LONGEST_SHOWN else f"a cell of {len(label)} characters"


def squeezed(words: str) -> str:
    """White space does not count: line ends inside an annotation are written as spaces."""
    return "".join(words.split())


def entities(annotations: Iterable[Annotation]) -> tuple[Entity, ...]:
    """Sorted by start, end, label."""
    found = (Entity(one.label, one.fragments[0][0], one.fragments[-1][1], pieces(one)) for one in annotations)
    return tuple(sorted(found, key=lambda one: (one.start, one.end, one.label, one.fragments)))


def pieces(annotation: Annotation) -> tuple[tuple[int, int], ...]:
    """The fragments of a discontinuous one."""
    return annotation.fragments if len(annotation.fragments) > 1 else ()

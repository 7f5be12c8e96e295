"""PhysioNet's `deidentifiedmedicaltext`: `id.text` holds nursing notes with made-up names and dates, `id.res` the same with marks in their place.

A note lies between `START_OF_RECORD=PATIENT||||NOTE||||` and `||||END_OF_RECORD`. What a mark (`[**Hospital 12**]`) stands for is what the text has between the words
that both share. The release has these two files only; the marks come from PhysioNet's `deid` with its own lists, so this, which the published
evaluations take for gold, is near to it. Known from the release's page and from the code that goes with BioClinical-ModernBERT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clm_detour.evaluate.formats.files import read_text
from clm_detour.evaluate.formats.form import Annotation, Example, Files, Form, trimmed
from clm_detour.utils.errors import UserError

RECORD = re.compile(r"START_OF_RECORD=(\d+)\|\|\|\|(\d+)\|\|\|\|\r?\n(.*?)\|\|\|\|END_OF_RECORD", re.DOTALL)
MARK = re.compile(r"\[\*\*(.*?)\*\*\]", re.DOTALL)
KINDS = (  # the first that a mark holds, in small letters
    (r"name", "name"),
    (r"e-?mail address", "other"),
    (r"telephone|pager number", "phone_nb"),
    (r"age over", "age"),
    (r"location|hospital|street address|unit number", "location"),
    (r"^\d+$|^\d{1,2}-\d{1,2}$|^\d{4}-\d{1,2}-\d{1,2}$|date range|month", "date"),
)


@dataclass(frozen=True)
class PhysioNet(Form):
    """The two files."""

    files: Files = "id.text"

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """A note each; those of a patient are parts of one document."""
        masked = file.with_suffix(".res")
        if not masked.is_file():
            raise UserError(f"{file} has no {masked.name} beside it; get the data set again.")
        marked = {name: text for name, text, _ in records(masked)}
        for (patient, note), text, place in records(file):
            if (patient, note) not in marked:
                raise UserError(f"{place}: {masked.name} has no note {note} of patient {patient}.")
            annotations = tuple(uncovered(text, marked[patient, note], place))
            marks = len(MARK.findall(marked[patient, note]))
            left_out = ("marks without text",) * (marks - len(annotations))
            yield Example(f"{patient}#{note}", text, place, annotations=annotations, left_out=left_out)


def records(file: Path) -> Iterator[tuple[tuple[str, str], str, str]]:
    """Patient and note, text, and place of each record."""
    text = read_text(file)
    found = False
    for match in RECORD.finditer(text):
        found = True
        line = text.count("\n", 0, match.start()) + 1
        yield (match[1], match[2]), match[3], f"{file} line {line}"
    if not found:
        raise UserError(f"{file} has no record that begins with START_OF_RECORD=; get the data set again.")


def uncovered(text: str, marked: str, place: str) -> Iterator[Annotation]:
    """What each mark stands for.

    Raises:
        UserError: the two texts differ elsewhere.
    """
    text = text.rstrip()
    pieces = MARK.split(marked.rstrip())  # plain, mark, plain, ...
    position = 0
    for number in range(0, len(pieces), 2):
        plain = pieces[number]
        if number == len(pieces) - 1:
            start = len(text) - len(plain)
        else:
            start = text.find(plain, position) if number else 0
        if start < position or not text.startswith(plain, start):
            raise UserError(
                f"{place}: the note and its masked copy differ after character {position}; get the data set again."
            )
        if number and text[position:start].strip():
            yield Annotation(kind(pieces[number - 1]), (trimmed(text, position, start),), place)
        position = start + len(plain)


def kind(mark: str) -> str:
    """What a mark says it stands for."""
    return next((name for pattern, name in KINDS if re.search(pattern, mark.strip().lower())), "other")

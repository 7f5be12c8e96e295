"""PhysioNet's `deidentifiedmedicaltext`: nursing notes in `id.text`, and in `id.res` with masked names.

A note lies between `START_OF_RECORD=PATIENT||||NOTE||||` and `||||END_OF_RECORD`. The names and dates in
`id.text` are made up, and `id.res` has marks like `[**Hospital 12**]` in their place. An entity is the text
that stands in the place of a mark. The release has no other annotation, so published evaluations use these
marks, which PhysioNet's `deid` wrote with its own lists, as gold annotations. The reader follows the
release's page and the code of BioClinical-ModernBERT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clm_detour.evaluate.formats.format import Annotation, Example, Files, Format, read_text, trimmed
from clm_detour.utils.errors import UserError

RECORD = re.compile(r"START_OF_RECORD=(\d+)\|\|\|\|(\d+)\|\|\|\|\r?\n(.*?)\|\|\|\|END_OF_RECORD", re.DOTALL)
MARK = re.compile(r"\[\*\*(.*?)\*\*\]", re.DOTALL)
TYPES = (  # the first pattern found in a mark, in lower case, gives its type
    (r"name", "name"),
    (r"e-?mail address", "other"),
    (r"telephone|pager number", "phone_nb"),
    (r"age over", "age"),
    (r"location|hospital|street address|unit number", "location"),
    (r"^\d+$|^\d{1,2}-\d{1,2}$|^\d{4}-\d{1,2}-\d{1,2}$|date range|month", "date"),
)


@dataclass(frozen=True)
class PhysioNet(Format):
    """The two files of the release."""

    files: Files = "id.text"

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """Yield an example for each note; the notes of a patient are parts of one document."""
        masked = file.with_suffix(".res")
        if not masked.is_file():
            raise UserError(f"{file} has no {masked.name} beside it; get the data set again.")
        marked = {name: text for name, text, _ in read_notes(masked)}
        for (patient, note), text, place in read_notes(file):
            if (patient, note) not in marked:
                raise UserError(f"{place}: {masked.name} has no note {note} of patient {patient}.")
            annotations = tuple(masked_entities(text, marked[patient, note], place))
            marks = len(MARK.findall(marked[patient, note]))
            left_out = ("marks without text",) * (marks - len(annotations))
            yield Example(f"{patient}#{note}", text, place, annotations=annotations, left_out=left_out)


def read_notes(file: Path) -> Iterator[tuple[tuple[str, str], str, str]]:
    """Yield patient and number, text, and place of each note."""
    text = read_text(file)
    found = False
    for match in RECORD.finditer(text):
        found = True
        line = text.count("\n", 0, match.start()) + 1
        yield (match[1], match[2]), match[3], f"{file} line {line}"
    if not found:
        raise UserError(f"{file} has no record that begins with START_OF_RECORD=; get the data set again.")


def masked_entities(text: str, marked: str, place: str) -> Iterator[Annotation]:
    """Yield the text in the place of each mark as an annotation.

    Raises:
        UserError: If the two texts differ elsewhere.
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
                f"{place}: the note and its masked copy differ after character {position}; "
                "get the data set again."
            )
        if number and text[position:start].strip():
            yield Annotation(type_of(pieces[number - 1]), (trimmed(text, position, start),), place)
        position = start + len(plain)


def type_of(mark: str) -> str:
    """Return the entity type that a mark names."""
    return next((name for pattern, name in TYPES if re.search(pattern, mark.strip().lower())), "other")

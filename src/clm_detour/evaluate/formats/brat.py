"""BRAT standoff (https://brat.nlplab.org/standoff.html): `NAME.txt`, and `NAME.ann` with annotations by character.

Text-bound annotations (`T1<TAB>DISO 0 20<TAB>words`, pieces of a discontinuous one divided by `;`) are read; notes (`#1<TAB>ICD-O T1<TAB>code`) and
normalisations (`N1<TAB>Reference T1 SNOMED:code<TAB>words`) where a task takes a document's labels from them. Events, relations and attributes are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from clm_detour.evaluate.formats.files import read_text
from clm_detour.evaluate.formats.form import Annotation, Example, Files, Form
from clm_detour.utils.errors import UserError

BOUND = re.compile(r"T\S*\t(\S+) (\d+ \d+(?:;\d+ \d+)*)(?:\t(.*))?")
NOTE = re.compile(r"#\S*\t(\S+) T\S+\t(.*)")
NORMALISATION = re.compile(r"N\S*\tReference T\S+ ([^:\s]+):(\S+)\s*(?:\t.*)?")
KINDS = "TREAMN#*"  # what a line of the format begins with


@dataclass(frozen=True)
class Brat(Form):
    """Folders of `.txt` and `.ann`.

    Args:
        codes: kinds of notes and normalisations whose codes are the labels of the document; none: it has entities.
        part: the type of annotation that marks each document in a longer text, which is not one itself.
        check_text: an annotation's words must be those at its offsets.
    """

    files: Files = "{split}/*.txt"
    codes: tuple[str, ...] = ()
    part: str | None = None
    check_text: bool = True

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """The one document, or its parts."""
        annotated = file.with_suffix(".ann")
        if not annotated.is_file():
            raise UserError(f"{file} has no {annotated.name} beside it; get the data set again.")
        text = read_text(file)
        if not text.strip():
            raise UserError(f"{file} is empty; get the data set again.")
        rows = [
            (f"{annotated} line {number}", line.removesuffix("\r"))
            for number, line in enumerate(read_text(annotated).removeprefix("\ufeff").split("\n"), start=1)
        ]
        for place, line in rows:
            if line.strip() and line[0] not in KINDS:
                raise UserError(f"{place} ({len(line)} characters) begins like no line of BRAT; correct it.")
        if self.codes:
            labels = dict.fromkeys(code for _, line in rows for code in self.codes_of(line))
            yield Example(file.stem, text, str(file), labels=tuple(labels))
        else:
            found = [self.annotation(place, line, text) for place, line in rows if line.startswith("T")]
            whole = Example(file.stem, text, str(file), annotations=tuple(found))
            yield from [whole] if self.part is None else parts(whole, self.part)

    def codes_of(self, line: str) -> Iterator[str]:
        """The code of a note or a normalisation of one of the kinds that count."""
        match = NOTE.fullmatch(line) or NORMALISATION.fullmatch(line)
        if match and match[1] in self.codes and match[2].strip():
            yield match[2].strip()

    def annotation(self, place: str, line: str, text: str) -> Annotation:
        """A text-bound annotation."""
        match = BOUND.fullmatch(line)
        if match is None:
            raise UserError(
                f"{place} ({len(line)} characters) is no annotation like `T1<TAB>Disease 0 5<TAB>words`."
            )
        pieces = (map(int, piece.split()) for piece in match[2].split(";"))
        fragments = tuple((start, end) for start, end in pieces)
        return Annotation(match[1], fragments, place, match[3] if self.check_text else None)


def parts(whole: Example, mark: str) -> Iterator[Example]:
    """The pieces of a text that some annotations mark, each with the annotations inside it.

    Each is a document of its own: a text that is cut up so is a mere collection.

    Raises:
        UserError: an annotation is inside none.
    """
    marks = sorted((one for one in whole.annotations if one.label == mark), key=lambda one: one.fragments)
    others = [one for one in whole.annotations if one.label != mark]
    stray = next((one for one in others if not any(contains(part, one) for part in marks)), None)
    if stray is not None:
        raise UserError(
            f"{stray.place}: {stray.label} is not inside one {mark}; correct its offsets or mark the {mark} that it is in."
        )
    for number, one in enumerate(marks, start=1):
        start, end = extent(one)
        inside = tuple(
            replace(other, fragments=tuple((first - start, last - start) for first, last in other.fragments))
            for other in others
            if contains(one, other)
        )
        yield Example(f"{whole.id}:{number}", whole.text[start:end], one.place, annotations=inside)


def contains(part: Annotation, other: Annotation) -> bool:
    """Whether all of another annotation lies in a part."""
    (start, end), (first, last) = extent(part), extent(other)
    return start <= first and last <= end


def extent(one: Annotation) -> tuple[int, int]:
    """From where its first piece starts to where its last ends, in whatever order the file has them."""
    return min(start for start, _ in one.fragments), max(end for _, end in one.fragments)

"""BRAT standoff (https://brat.nlplab.org/standoff.html): `NAME.txt`, with its annotations in `NAME.ann`.

Three kinds of line are read: text-bound annotations (`T1<TAB>DISO 0 20<TAB>words`, where `;` divides the
pieces of a discontinuous one); and, for tasks whose labels are codes, notes (`#1<TAB>ICD-O T1<TAB>code`) and
normalizations (`N1<TAB>Reference T1 SNOMED:code<TAB>words`). Events, relations and attributes are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from clm_detour.evaluate.formats.format import Annotation, Example, Files, Format, read_text
from clm_detour.utils.errors import UserError

TEXT_BOUND = re.compile(r"T\S*\t(\S+) (\d+ \d+(?:;\d+ \d+)*)(?:\t(.*))?")
NOTE = re.compile(r"#\S*\t(\S+) T\S+\t(.*)")
NORMALIZATION = re.compile(r"N\S*\tReference T\S+ ([^:\s]+):(\S+)\s*(?:\t.*)?")
FIRST_CHARACTERS = "TREAMN#*"  # of the lines that the format knows


@dataclass(frozen=True)
class Brat(Format):
    """Folders of `.txt` and `.ann` files.

    Args:
        codes: Kinds of notes and normalizations whose codes are the labels of the document. If empty, the
            document has entities instead of labels.
        part: Type of the annotation that marks each document in a longer text. It is not an entity itself.
        check_text: Raise an error if the words of an annotation differ from those at its offsets.
    """

    files: Files = "{split}/*.txt"
    codes: tuple[str, ...] = ()
    part: str | None = None
    check_text: bool = True

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """Yield the document of a file, or its parts."""
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
            if line.strip() and line[0] not in FIRST_CHARACTERS:
                raise UserError(
                    f"{place} ({len(line)} characters) does not begin like a line of BRAT; correct it."
                )
        if self.codes:
            labels = dict.fromkeys(code for _, line in rows for code in self.codes_of(line))
            yield Example(file.stem, text, str(file), labels=tuple(labels))
        else:
            found = [self.annotation(place, line) for place, line in rows if line.startswith("T")]
            whole = Example(file.stem, text, str(file), annotations=tuple(found))
            yield from [whole] if self.part is None else parts(whole, self.part)

    def codes_of(self, line: str) -> Iterator[str]:
        """Yield the code of a note or a normalization if its kind is among `codes`."""
        match = NOTE.fullmatch(line) or NORMALIZATION.fullmatch(line)
        if match and match[1] in self.codes and match[2].strip():
            yield match[2].strip()

    def annotation(self, place: str, line: str) -> Annotation:
        """Return the text-bound annotation of a line."""
        match = TEXT_BOUND.fullmatch(line)
        if match is None:
            raise UserError(
                f"{place} ({len(line)} characters) is not an annotation like `T1<TAB>Disease 0 5<TAB>words`."
            )
        pieces = (map(int, piece.split()) for piece in match[2].split(";"))
        fragments = tuple((start, end) for start, end in pieces)
        return Annotation(match[1], fragments, place, match[3] if self.check_text else None)


def parts(whole: Example, mark: str) -> Iterator[Example]:
    """Yield the pieces of a text that the annotations of one type mark, each with the annotations inside it.

    Each piece is a document of its own, because such a text is only a collection of documents.

    Raises:
        UserError: If an annotation is not inside one piece.
    """
    marks = sorted((one for one in whole.annotations if one.label == mark), key=lambda one: one.fragments)
    others = [one for one in whole.annotations if one.label != mark]
    stray = next((one for one in others if not any(contains(part, one) for part in marks)), None)
    if stray is not None:
        raise UserError(
            f"{stray.place}: {stray.label} is not inside one {mark}; correct its offsets or mark the {mark} "
            "that it is in."
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
    """Return whether an annotation lies completely inside a part."""
    (start, end), (first, last) = extent(part), extent(other)
    return start <= first and last <= end


def extent(one: Annotation) -> tuple[int, int]:
    """Return the smallest start and the largest end of an annotation's pieces, which may be in any order."""
    return min(start for start, _ in one.fragments), max(end for _, end in one.fragments)

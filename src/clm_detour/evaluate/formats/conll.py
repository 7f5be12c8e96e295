"""CoNLL: a word and its tags a line, a blank line after each sentence, a sentence an example.

Tags are read as `conlleval` reads them: IOB1, IOB2 and IOBES alike, and an inside tag that continues nothing begins an entity. The text is
the words with a space between. `-DOCSTART- ID` begins a document, whose sentences are `ID#1`, `ID#2`, ...; others are `FILE:1`, `FILE:2`, ...
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clm_detour.errors import UserError
from clm_detour.evaluate.formats.files import lines
from clm_detour.evaluate.formats.form import Annotation, Example, Files, Form

TAG = re.compile(r"([OBIESLU])(?:[-_](.+))?")
BEGINS, ENDS = "BSU", "ESLU"
DOCUMENT = "-DOCSTART-"
NO_NAME = ("-X-", "O")


@dataclass(frozen=True)
class Row:
    """A line: a word, what its tag says, and its place."""

    word: str
    prefix: str
    label: str
    place: str


@dataclass(frozen=True)
class Conll(Form):
    """Files of tagged words.

    Args:
        word: its column, counted from 0 or, negative, from the end.
        tag: likewise.
        label: of entities whose tags are a bare B and I.
    """

    files: Files = ("{split}.tsv", "{split}.txt", "{split}.conll", "{split}.iob", "{split}.iob2", "{split}")
    word: int = 0
    tag: int = -1
    label: str | None = None

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """A sentence each."""
        document, numbers, sentence = prefix_of(DOCUMENT, file), Counter[str](), list[Row]()
        for place, line in [*lines(file), ("", "")]:
            if line.strip() and not line.startswith(DOCUMENT):
                sentence.append(self.row(place, line))
                continue
            if sentence:
                numbers[document] += 1  # an abstract may come twice, as in JNLPBA
                yield tagged(f"{document}{numbers[document]}", sentence)
                sentence = []
            if line.startswith(DOCUMENT):
                document = prefix_of(line, file)

    def row(self, place: str, line: str) -> Row:
        """A word and its tag."""
        cells = line.split("\t") if "\t" in line else line.split(" ")
        try:
            word, tag = cells[self.word].strip(), cells[self.tag].strip()
        except IndexError:
            word = tag = ""
        if len(cells) < 2 or not word:
            raise UserError(f"{place} ({len(line)} characters) is not a word and its tag.")
        return Row(word, *tag_of(tag, self.label, place), place)


def prefix_of(line: str, file: Path) -> str:
    """What ids begin with after a DOCUMENT line; the columns of CoNLL-2003's (`-X- -X- O`) are no name."""
    words = line.removeprefix(DOCUMENT).split()
    return f"{words[0]}#" if len(words) == 1 and words[0] not in NO_NAME else f"{file.stem}:"


def tag_of(tag: str, label: str | None, place: str) -> tuple[str, str]:
    """A tag's prefix and type; `label` is the type of a bare B or I."""
    match = TAG.fullmatch(tag)
    if match is None:
        raise UserError(
            f"{place} has no tag like O, B-Disease or I-Disease in its column; say which column with `tag`."
        )
    if tag != "O" and not (match[2] or label):
        raise UserError(f"{place}: the tag {tag} names no type; say which it is with `label`.")
    return match[1], match[2] or label or ""


def tagged(id: str, rows: Sequence[Row]) -> Example:
    """A sentence of tagged words."""
    words, end = [], -1
    for row in rows:
        words.append((end + 1, end + 1 + len(row.word)))
        end = words[-1][1]
    annotations = tuple(
        Annotation(rows[first].label, ((words[first][0], words[last][1]),), rows[first].place)
        for first, last in chunks([(row.prefix, row.label) for row in rows])
    )
    return Example(id, " ".join(row.word for row in rows), rows[0].place, tuple(words), annotations)


def chunks(tags: Sequence[tuple[str, str]]) -> Iterator[tuple[int, int]]:
    """The first and last word of each entity, from (prefix, label) a word; as `conlleval`."""
    first: int | None = None
    for place, (prefix, label) in enumerate(tags):
        before, label_before = tags[place - 1] if place else ("O", "")
        starts = prefix != "O" and (
            prefix in BEGINS or before == "O" or before in ENDS or label != label_before
        )
        if first is not None and (prefix == "O" or starts):
            yield first, place - 1
            first = None
        if starts:
            first = place
    if first is not None:
        yield first, len(tags) - 1

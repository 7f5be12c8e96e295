"""CoNLL: a word and its tags a line, a blank line after each sentence, a sentence an example.

Columns are divided by tabs if a line has tabs between them, otherwise by blanks; blanks around them and at the end of a line do not count, and
every line of a file has as many columns. Tags are read as `conlleval` reads them: IOB1, IOB2 and IOBES alike, and an inside tag that continues
nothing begins an entity. The text is the words with a space between. `-DOCSTART- ID` begins a document, whose sentences are `ID#1`, `ID#2`, ...; others are `FILE:1`, `FILE:2`, ...
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clm_detour.evaluate.formats.files import lines
from clm_detour.evaluate.formats.form import Annotation, Example, Files, Form
from clm_detour.utils.errors import UserError

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
        columns: int | None = None
        for place, line in [*lines(file), ("", "")]:
            line = line.strip(" ").rstrip()  # a tab at the start ends an empty first column
            if line.strip() and not line.startswith(DOCUMENT):
                cells = line.split("\t") if "\t" in line else re.split(" +", line)
                sentence.append(self.row(place, line, cells))
                columns = columns or len(cells)
                if len(cells) != columns:
                    raise UserError(
                        f"{place} has {len(cells)} columns, but the lines before it have {columns}; correct the line."
                    )
                continue
            if sentence:
                numbers[document] += 1  # an abstract may come twice, as in JNLPBA
                yield tagged(f"{document}{numbers[document]}", sentence)
                sentence = []
            if line.startswith(DOCUMENT):
                document = prefix_of(line, file)

    def row(self, place: str, line: str, cells: Sequence[str]) -> Row:
        """Return the word and its tag."""
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
            f"{place} has no tag like O, B-Disease or I-Disease in its column; say which column with `tag` (of the hub: `tags`)."
        )
    if tag != "O" and not (match[2] or label):
        raise UserError(f"{place}: the tag {tag} names no type; say which it is with `label`.")
    return match[1], match[2] or label or ""


def tagged(id: str, rows: Sequence[Row]) -> Example:
    """Return a sentence of tagged words. A word that is an empty string has no place in the text, so an entity covers the others of its words only."""
    words: dict[int, tuple[int, int]] = {}
    end = -1
    for number, row in enumerate(rows):
        if row.word:
            words[number] = (end + 1, end + 1 + len(row.word))
            end = words[number][1]
    annotations, left_out = [], []
    for first, last in chunks([(row.prefix, row.label) for row in rows]):
        covered = [words[number] for number in range(first, last + 1) if number in words]
        if covered:
            span = (covered[0][0], covered[-1][1])
            annotations.append(Annotation(rows[first].label, (span,), rows[first].place))
        else:
            left_out.append("annotations on empty words")
    text = " ".join(row.word for row in rows if row.word)
    return Example(
        id, text, rows[0].place, tuple(words.values()), tuple(annotations), left_out=tuple(left_out)
    )


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

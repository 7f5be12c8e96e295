"""CoNLL: a word and its tags in each line, a blank line after each sentence. Each sentence is an example.

Columns are divided by tabs if a line has tabs inside it, and by spaces otherwise. Spaces at the start and
white space at the end of a line are ignored, and all lines of a file must have the same number of columns.
Tags are read as `conlleval` reads them: IOB1, IOB2 and IOBES, and an inside tag that continues nothing begins
an entity. The text is the words with a space between them. A line `-DOCSTART- ID` begins a document with the
sentences `ID#1`, `ID#2`, ...; other sentences are `FILE:1`, `FILE:2`, ...
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clm_detour.evaluate.formats.format import Annotation, Example, Files, Format, read_lines
from clm_detour.utils.errors import UserError

TAG = re.compile(r"([OBIESLU])(?:[-_](.+))?")
BEGINS, ENDS = "BSU", "ESLU"
DOCUMENT = "-DOCSTART-"
NO_NAME = ("-X-", "O")  # the columns of CoNLL-2003's document lines


@dataclass(frozen=True)
class Row:
    """A word with its tag.

    Args:
        prefix: First letter of the tag.
        label: Entity type of the tag.
        place: File and line, for messages.
    """

    word: str
    prefix: str
    label: str
    place: str


@dataclass(frozen=True)
class Conll(Format):
    """Files of tagged words.

    Args:
        word: Column of the word, counted from 0, or from the end if negative.
        tag: Column of the tag, counted in the same way.
        label: Entity type of tags that are only B or I.
    """

    files: Files = ("{split}.tsv", "{split}.txt", "{split}.conll", "{split}.iob", "{split}.iob2", "{split}")
    word: int = 0
    tag: int = -1
    label: str | None = None

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """Yield an example for each sentence."""
        document, numbers, sentence = id_prefix(DOCUMENT, file), Counter[str](), list[Row]()
        columns: int | None = None
        for place, line in [*read_lines(file), ("", "")]:
            line = line.strip(" ").rstrip()  # keep a tab at the start: it ends an empty first column
            if line.strip() and not line.startswith(DOCUMENT):
                cells = line.split("\t") if "\t" in line else re.split(" +", line)
                sentence.append(self.row(place, line, cells))
                columns = columns or len(cells)
                if len(cells) != columns:
                    raise UserError(
                        f"{place} has {len(cells)} columns, but the lines before it have {columns}; "
                        "correct the line."
                    )
                continue
            if sentence:
                numbers[document] += 1  # a document may occur twice, as in JNLPBA
                yield tagged_sentence(f"{document}{numbers[document]}", sentence)
                sentence = []
            if line.startswith(DOCUMENT):
                document = id_prefix(line, file)

    def row(self, place: str, line: str, cells: Sequence[str]) -> Row:
        """Return the word and the tag of a line."""
        try:
            word, tag = cells[self.word].strip(), cells[self.tag].strip()
        except IndexError:
            word = tag = ""
        if len(cells) < 2 or not word:
            raise UserError(f"{place} ({len(line)} characters) is not a word and its tag.")
        return Row(word, *parse_tag(tag, self.label, place), place)


def id_prefix(line: str, file: Path) -> str:
    """Return the start of the ids of the sentences after a DOCUMENT line."""
    words = line.removeprefix(DOCUMENT).split()
    return f"{words[0]}#" if len(words) == 1 and words[0] not in NO_NAME else f"{file.stem}:"


def parse_tag(tag: str, label: str | None, place: str) -> tuple[str, str]:
    """Return the prefix and the entity type of a tag; `label` is the type of a tag that is only B or I."""
    match = TAG.fullmatch(tag)
    if match is None:
        raise UserError(
            f"{place} has no tag like O, B-Disease or I-Disease in its column; set `tag` to the column of "
            "the tags (`tags` for a data set of the hub)."
        )
    if tag != "O" and not (match[2] or label):
        raise UserError(f"{place}: the tag {tag} names no entity type; set `label` to the type.")
    return match[1], match[2] or label or ""


def tagged_sentence(id: str, rows: Sequence[Row]) -> Example:
    """Return a sentence of tagged words as an example.

    An empty word has no place in the text, so an entity covers only those of its words that are not empty.
    """
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
    """Yield the first and the last word of each entity, given the prefix and the label of each word."""
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

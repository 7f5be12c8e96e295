"""Records with a text and its labels: TSV, CSV, JSON lines and parquet, told apart by their names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from clm_detour.config.expressions.fields import missing_column, missing_field
from clm_detour.config.expressions.formats import guess
from clm_detour.config.schema import Source
from clm_detour.data.sources.delimited import DELIMITERS
from clm_detour.data.sources.readers import READERS
from clm_detour.data.sources.records import BadRecord, Record
from clm_detour.evaluate.formats.files import SPLIT_NAMES
from clm_detour.evaluate.formats.form import Example, Files, Form, skipped
from clm_detour.utils.errors import UserError

NAMES = (
    "{split}.tsv",
    "{split}.csv",
    "{split}.jsonl",
    "{split}.json",
    "{split}.parquet",
    "{split}-*.parquet",
)
FLAG = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True, "": False}
NO_SPLIT = "rows of no split"


@dataclass(frozen=True)
class Table(Form):
    """Files of records.

    Args:
        text: the column of the text.
        label: the column of the one label, or of several: a list, or a cell that `separate` takes apart (a ValueError says why not).
            Null, NaN and an empty cell are no label, and the number 1.0 is the label 1.
        flags: instead of `label`, a column for each label, 0 or 1, by its name. Null, NaN and an empty cell are 0.
        id: the column of what names a record; otherwise its file and number do.
        document: a pattern whose first group, found in `id`, names the document that a row is a sentence of. A document's
            rows follow each other; they are joined with spaces, and its labels are those of any of them.
        split: the column that says a record's split, where one file holds them all.
        format: jsonl, csv, tsv or parquet, where the name does not tell.
        quoted: cells of a CSV or TSV may stand in double quotes; if None, those of a CSV may.
    """

    files: Files = (*NAMES, *(f"data/{name}" for name in NAMES))
    text: str = "text"
    label: str | None = "label"
    flags: tuple[str, ...] = ()
    separate: Callable[[str], Sequence[str]] | None = None
    id: str | None = None
    document: str | None = None
    split: str | None = None
    format: str | None = None
    quoted: bool | None = None

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """A row each, or a document each."""
        unplaced: list[str] = []
        rows = self.rows_of(file, split, unplaced)
        yield from rows if self.document is None else self.documents(rows)
        if split == "train":  # the file is read for each split, and they are counted once
            yield from skipped(str(file), unplaced)

    def rows_of(self, file: Path, split: str, unplaced: list[str]) -> Iterator[Example]:
        """Yield the rows of one split; adds `NO_SPLIT` to `unplaced` for each row that names no split."""
        for number, record in enumerate(self.rows(file, split), start=1):
            named = split if self.split is None else split_of(record, self.split)
            if named is None:
                unplaced.append(NO_SPLIT)
            elif named == split:
                yield self.example(record, f"{file.stem}:{number}")

    def rows(self, file: Path, split: str) -> Iterator[Record]:
        """The records of a file."""
        return records(file, self.format, self.quoted)

    def example(self, record: Record, number: str) -> Example:
        """One row."""
        text = cell(record, self.text)
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{record.place} has no text in {self.text}; remove it.")
        return Example(self.id_of(record, number), text, record.place, labels=tuple(self.labels(record)))

    def id_of(self, record: Record, number: str) -> str:
        """Return what names a row: its cell, or `number` where no column does."""
        return number if self.id is None else name_of(record, self.id)

    def labels(self, record: Record) -> list[str]:
        """Those of one row."""
        if self.flags:
            return [name for name in self.flags if is_set(record, name)]
        value = cell(record, self.label or "label")
        if isinstance(value, str) and self.separate is not None:
            try:
                return list(self.separate(value))
            except ValueError as error:
                raise UserError(f"{record.place}: {error}") from None
        parts = value if isinstance(value, list) else [value]
        if not all(is_label(part) for part in parts):
            raise UserError(f"{record.place}: {self.label} has something that is neither text nor a number.")
        return [label for part in parts if (label := written(part))]

    def documents(self, rows: Iterable[Example]) -> Iterator[Example]:
        """Sentences joined."""
        for name, group in groupby(rows, self.document_of):
            sentences = list(group)
            labels = dict.fromkeys(label for sentence in sentences for label in sentence.labels)
            text = " ".join(sentence.text for sentence in sentences)
            yield Example(name, text, sentences[0].place, labels=tuple(labels))

    def document_of(self, row: Example) -> str:
        """Which document a sentence is of."""
        match = re.match(self.document or "", row.id)
        if match is None:
            raise UserError(f"{row.place}: {self.id} names no document of the form {self.document}.")
        return match[1]


def is_set(record: Record, name: str) -> bool:
    """A flag."""
    value = written(cell(record, name)).lower()
    if value not in FLAG:
        raise UserError(f"{record.place}: {name} is neither 0 nor 1.")
    return FLAG[value]


def cell(record: Record, name: str) -> Any:
    """A field that must be there."""
    if name not in record.fields:
        raise UserError(f"{record.place}{missing(record, name)}.")
    return record.fields[name]


def written(value: Any) -> str:
    """Return a cell as a text file would have it: nothing for null and NaN, and a whole number without its point."""
    if value is None or value != value:  # only NaN differs from itself
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def is_label(value: Any) -> bool:
    """Return whether a cell, or an entry of its list, can be a label or stand for none."""
    return value is None or (isinstance(value, (str, int, float)) and value not in (math.inf, -math.inf))


def name_of(record: Record, column: str) -> str:
    """Return what names a record.

    Raises:
        UserError: the cell is empty.
    """
    name = written(cell(record, column))
    if not name:
        raise UserError(f"{record.place} has nothing in {column}, which names the records; fill it in.")
    return name


def split_of(record: Record, column: str) -> str | None:
    """Return the split that a record's cell names in any usual way, or None."""
    name = written(cell(record, column)).lower()
    return next((split for split, names in SPLIT_NAMES.items() if name in names), None)


class HeadedRecord(Record):
    """A record whose fields have their names from a file's first line, which is text where the header is missing."""


def missing(record: Record, name: str) -> str:
    """The end of a sentence about a record without some field."""
    describe = missing_column if isinstance(record, HeadedRecord) else missing_field
    return describe(name, list(record.fields))


def records(file: Path, format: str | None = None, quoted: bool | None = None) -> Iterator[Record]:
    """The records of one file, as the sources of training read them, but none may be broken.

    Raises:
        UserError: one is, or there is none.
    """
    format = format or guess(str(file)) or "jsonl"
    source = Source(path=str(file), quoted=format == "csv" if quoted is None else quoted)
    found = False
    try:
        for unit in READERS[format].units(str(file), format, source):
            for record in READERS[format].records(unit, source, None, lambda _: None):
                if isinstance(record, BadRecord):
                    raise record
                found = True
                yield HeadedRecord(*record) if format in DELIMITERS else record
    except BadRecord as error:
        cells = error.reason == "wrong number of cells" and not source.quoted
        hint = (
            "; repair it, or set `quoted: true` if cells stand in double quotes." if cells else "; repair it."
        )
        raise UserError(f"{error}{hint}") from error
    if not found:
        raise UserError(f"{file} is empty; get the data set again.")

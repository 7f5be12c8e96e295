"""Records with a text and its labels: TSV, CSV, JSON lines and parquet files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
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
from clm_detour.evaluate.formats.format import SPLIT_NAMES, Example, Files, Format, count_skipped
from clm_detour.utils.errors import UserError

NAMES = (
    "{split}.tsv",
    "{split}.csv",
    "{split}.jsonl",
    "{split}.json",
    "{split}.parquet",
    "{split}-*.parquet",
)
FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True, "": False}
NO_SPLIT = "rows of no split"


@dataclass(frozen=True)
class Table(Format):
    """Files of records.

    Args:
        text: Column of the text.
        label: Column of the label, or of several labels in a list or in a cell with separators. Null, NaN and
            an empty cell are no label, and the number 1.0 is the label 1.
        separator: Text between the labels of a cell.
        flags: Instead of `label`: columns of 0 and 1 whose names are labels. Null, NaN and an empty cell are
            0.
        numbered_flags: Names of the labels if a cell of `label` has a numbered flag for each, like `0_0,1_1`.
        id: Column that names a record. By default, a record is named by its file and its number.
        document: Pattern for the values of `id`. Its first group names the document that a row is a sentence
            of. The rows of a document must follow each other. They are joined with spaces, and the document
            has all their labels.
        split: Column that names the split of a record, if one file holds several splits.
        quoted: Whether cells of a CSV or TSV file may be in double quotes. By default, those of a CSV file
            may.
        format: jsonl, csv, tsv or parquet. By default, the name of the file tells.
    """

    files: Files = (*NAMES, *(f"data/{name}" for name in NAMES))
    text: str = "text"
    label: str = "label"
    separator: str | None = None
    flags: tuple[str, ...] = ()
    numbered_flags: tuple[str, ...] = ()
    id: str | None = None
    document: str | None = None
    split: str | None = None
    quoted: bool | None = None
    format: str | None = None

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """Yield an example for each row, or for each document if rows are sentences."""
        unplaced: list[str] = []
        rows = self.rows_of_split(file, split, unplaced)
        yield from rows if self.document is None else self.documents(rows)
        if split == "train":  # the file is read for each split; count these rows only once
            yield from count_skipped(str(file), unplaced)

    def rows_of_split(self, file: Path, split: str, unplaced: list[str]) -> Iterator[Example]:
        """Yield the rows of a split; append `NO_SPLIT` to `unplaced` for each row that names no split."""
        for number, record in enumerate(self.rows(file, split), start=1):
            named = split if self.split is None else split_of(record, self.split)
            if named is None:
                unplaced.append(NO_SPLIT)
            elif named == split:
                yield self.example(record, f"{file.stem}:{number}")

    def rows(self, file: Path, split: str) -> Iterator[Record]:
        """Yield the records of a file."""
        return read_records(file, self.format, self.quoted)

    def example(self, record: Record, number: str) -> Example:
        """Return a row as an example."""
        text = cell(record, self.text)
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{record.place} has no text in {self.text}; remove it.")
        return Example(self.id_of(record, number), text, record.place, labels=tuple(self.labels(record)))

    def id_of(self, record: Record, number: str) -> str:
        """Return the id of a row: its cell, or `number` if no column names it."""
        return number if self.id is None else name_of(record, self.id)

    def labels(self, record: Record) -> list[str]:
        """Return the labels of a row."""
        if self.flags:
            return [name for name in self.flags if is_set(record, name)]
        value = cell(record, self.label)
        if isinstance(value, str) and self.numbered_flags:
            return set_flags(value, self.numbered_flags, record.place)
        if isinstance(value, str) and self.separator is not None:
            return [part.strip() for part in value.split(self.separator) if part.strip()]
        parts = value if isinstance(value, list) else [value]
        if not all(is_label(part) for part in parts):
            raise UserError(f"{record.place}: {self.label} has something that is neither text nor a number.")
        return [label for part in parts if (label := cell_text(part))]

    def documents(self, rows: Iterable[Example]) -> Iterator[Example]:
        """Yield the documents that consecutive rows belong to."""
        for name, group in groupby(rows, self.document_of):
            sentences = list(group)
            labels = dict.fromkeys(label for sentence in sentences for label in sentence.labels)
            text = " ".join(sentence.text for sentence in sentences)
            yield Example(name, text, sentences[0].place, labels=tuple(labels))

    def document_of(self, row: Example) -> str:
        """Return the name of the document that a row belongs to."""
        match = re.match(self.document or "", row.id)
        if match is None:
            raise UserError(f"{row.place}: {self.id} names no document of the form {self.document}.")
        return match[1]


def set_flags(flags: str, names: tuple[str, ...], place: str) -> list[str]:
    """Return the names whose flag is 1 in a cell like `0_0,1_1`."""
    found = dict(part.split("_", 1) for part in flags.split(",") if "_" in part)
    if set(found) != {str(number) for number in range(len(names))} or not set(found.values()) <= {"0", "1"}:
        raise UserError(
            f"{place}: the labels ({len(flags)} characters) are not of the form "
            f"0_0,1_1,...,{len(names) - 1}_0."
        )
    return [name for number, name in enumerate(names) if found[str(number)] == "1"]


def is_set(record: Record, name: str) -> bool:
    """Return the value of a flag."""
    value = cell_text(cell(record, name)).lower()
    if value not in FLAGS:
        raise UserError(f"{record.place}: {name} is neither 0 nor 1.")
    return FLAGS[value]


def cell(record: Record, name: str) -> Any:
    """Return a field that the record must have."""
    if name not in record.fields:
        raise UserError(f"{record.place}{missing(record, name)}.")
    return record.fields[name]


def cell_text(value: Any) -> str:
    """Return a cell as a text file has it: nothing for null and NaN, and a whole number without its point."""
    if value is None or value != value:  # only NaN differs from itself
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def is_label(value: Any) -> bool:
    """Return whether a cell, or an entry of a list, is a label or an absent label."""
    return value is None or (isinstance(value, (str, int, float)) and value not in (math.inf, -math.inf))


def name_of(record: Record, column: str) -> str:
    """Return the name of a record.

    Raises:
        UserError: If the cell is empty.
    """
    name = cell_text(cell(record, column))
    if not name:
        raise UserError(f"{record.place} has nothing in {column}, which names the records; fill it in.")
    return name


def split_of(record: Record, column: str) -> str | None:
    """Return the split that a record's cell names in any usual way, or None."""
    name = cell_text(cell(record, column)).lower()
    return next((split for split, names in SPLIT_NAMES.items() if name in names), None)


class HeadedRecord(Record):
    """A record whose names are in the first line of its file, which is a document if there is no header."""


def missing(record: Record, name: str) -> str:
    """Return the end of a sentence about a record that lacks a field."""
    describe = missing_column if isinstance(record, HeadedRecord) else missing_field
    return describe(name, list(record.fields))


def read_records(file: Path, format: str | None = None, quoted: bool | None = None) -> Iterator[Record]:
    """Yield the records of a file with the readers of training sources, but refuse broken records.

    Raises:
        UserError: If a record is broken or the file has no records.
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
            "; repair it, or set `quoted: true` if cells are in double quotes." if cells else "; repair it."
        )
        raise UserError(f"{error}{hint}") from error
    if not found:
        raise UserError(f"{file} is empty; get the data set again.")

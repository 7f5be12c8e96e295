"""The texts of evaluation data, which are to be kept out of training.

Tables count as text, since only runs of words matter: cells are words with something between them. In files
with a token and its tags on each line (CoNLL), only the tokens count. In records, all text counts; in XML
other than PubMed's, all text between tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from xml.etree import ElementTree

from clm_detour.config.expressions.formats import guess
from clm_detour.config.schema import Source
from clm_detour.data.sources.files import ANY, list_files, open_raw, unpacked
from clm_detour.data.sources.lines import read_lines
from clm_detour.data.sources.readers import READERS
from clm_detour.data.sources.records import BadRecord, Unit, lost
from clm_detour.utils.errors import UserError

TAG = re.compile(r"O|[BIESLU](-.+)?")
WITH_FIELDS = ("jsonl", "parquet", "arrow", "pubmed")


def evaluation_texts(paths: Iterable[str]) -> Iterator[str]:
    """Yield every text in some files, folders and globs. Files of unknown formats are read as plain text.

    Raises:
        UserError: If a file is missing, or cannot be read.
    """
    for path in paths:
        for file in list_files(path, format=ANY):
            try:
                yield from texts_of_file(file)
            except BadRecord as error:
                raise UserError(
                    f"{error}; repair it, since texts that cannot be read cannot be kept out of training."
                ) from error


def texts_of_file(file: str) -> Iterator[str]:
    """Yield the texts of one file."""
    format = guess(file)
    if format not in WITH_FIELDS:
        yield plain_text(file)
        return
    try:
        yield from texts_of_records(file, format)
    except BadRecord as error:
        if error.reason != "not PubMed":
            raise
        yield from xml_texts(file)


def texts_of_records(file: str, format: str) -> Iterator[str]:
    """Yield all text in all records of a file."""
    source = Source(path=file)
    for unit in READERS[format].units(file, format, source):
        for record in READERS[format].records(unit, source, None, lambda _: None):
            if isinstance(record, BadRecord):
                raise record
            yield from strings(record.fields)


def xml_texts(file: str) -> Iterator[str]:
    """Yield the text of all elements twice, with and without blanks, since a tag can be between two words or
    inside one.
    """
    try:
        with open_raw(file) as raw:
            root = ElementTree.parse(unpacked(raw, file)).getroot()
    except ElementTree.ParseError as error:
        raise lost(f"{file} is not well-formed XML ({error})") from None
    except OSError as error:
        raise lost(f"{file} is damaged ({error})") from error
    for between in ("", " "):
        yield between.join(root.itertext())


def strings(value: Any) -> Iterator[str]:
    """Yield all text in a value of a record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def plain_text(file: str) -> str:
    """Return the text of a file; only the tokens if it is in CoNLL format."""
    lines = [line.decode(errors="replace") for _, line in read_lines(Unit(file, "text", 0), lambda _: None)]
    cells = [line.split() for line in lines if line.strip() and not line.startswith("-DOCSTART-")]
    if cells and all(len(row) > 1 and TAG.fullmatch(row[-1]) for row in cells):
        return " ".join(row[0] for row in cells)
    return "".join(lines)

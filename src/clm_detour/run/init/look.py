"""Look at a bounded sample of a source: the field that holds its text, its documents and its tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from clm_detour.config.expressions.fields import SHOWN
from clm_detour.config.expressions.formats import compression_of
from clm_detour.config.schema import Source
from clm_detour.data.sources import BadRecord, Record, Selection, Unit, file_stamp, list_files
from clm_detour.data.sources.lines import read_lines
from clm_detour.data.sources.read import remedy
from clm_detour.data.sources.readers import READERS, until_lost
from clm_detour.data.sources.selection import Document
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.run.init.files import kind_of
from clm_detour.utils.errors import UserError

PARTS = 8  # of a source that are read, spread over it
PART_BYTES = 2**19  # bytes of each of them
SHORT_FILES = 64  # files of one document that are read
TOKENIZED = 2**18  # characters that are tokenized for the number of tokens in a character
BYTES_PER_TOKEN = 4.0  # of English text with a vocabulary of 50,000, where no tokenizer can be read

TEXT_FIELDS = ("text", "content", "body", "full_text", "document", "article", "note", "raw_content")
# Fields that make a document together. One that ends in `?` may be missing.
TOGETHER = (
    ("title?", "abstract"),
    ("instruction", "input?", "output"),
    ("instruction", "input?", "response"),
    ("prompt", "response"),
    ("prompt", "completion"),
    ("question", "answer"),
)
MOSTLY = 0.5  # share of the records in which a field must hold text
FEWEST_WORDS = 3.0  # mean of a field with text; one with fewer holds identifiers or names
LONGEST_NAME = 60  # characters of a field's name; a longer one is text in a file without a header

SEPARATE_FILES = 20  # as many text files are a document each
LONGEST_FILE = 2**20  # bytes of a text file that is one document
LONG_LINE = 40.0  # characters; documents on lines are longer on average


@dataclass(frozen=True)
class Found:
    """The findings in a sample of a source.

    Args:
        source: The source with the settings that it needs.
        files: Number of its files.
        documents, tokens: Estimates for the whole source.
        lengths: Tokens of sampled documents.
        complete: Whether the whole source was read.
        bad: First record that cannot be used, or None.
    """

    source: Source
    files: int
    documents: int
    tokens: int
    lengths: tuple[int, ...]
    complete: bool
    bad: BadRecord | None


def look_at(source: Source, tokenizer: Tokenizer | None) -> Found:
    """Read a sample of a source.

    Raises:
        UserError: If no file can be read, or none holds text.
    """
    files = list_files(source.path, source.format, source.split)
    sizes = {file: file_stamp(file)["size"] for file in files}
    if (kind := source.format or kind_of(files[0])) == "text":
        source = replace(source, document=document_of(files, sizes))
    parts = list(parts_of(kind, source.document, sizes))
    limit = PARTS * PART_BYTES // len(parts)
    sample = [read_part(part, source, limit) for part in parts]
    records = [record for found, _ in sample for record in found]
    fields = [record.fields for record in records if isinstance(record, Record)]
    if not fields and isinstance(first := next(iter(records), None), BadRecord):
        raise UserError(f"{first}; {remedy(first)}.")
    source = with_text(source, fields)
    texts, bad = documents_of(source, records)
    if not texts:
        raise UserError(f"{bad}; {remedy(bad)}." if bad else f"{source.path} holds no text.")
    scale = max(sum(sizes.values()) / max(sum(consumed for _, consumed in sample), 1), 1.0)
    characters = sum(map(len, texts))
    some = texts[:: 1 + characters // TOKENIZED]
    lengths = token_lengths(some, tokenizer)
    return Found(
        source=source,
        files=len(files),
        documents=len(files) if (kind, source.document) == ("text", "file") else round(len(texts) * scale),
        tokens=round(sum(lengths) / sum(map(len, some)) * characters * scale),
        lengths=lengths,
        complete=scale == 1.0,
        bad=bad,
    )


def documents_of(source: Source, records: Sequence[Record | BadRecord]) -> tuple[list[str], BadRecord | None]:
    """Return the texts of records, and the first record that cannot be used."""
    selection = Selection.of(source)
    made = [selection.document(each) if isinstance(each, Record) else each for each in records]
    bad = next((each for each in made if isinstance(each, BadRecord)), None)
    return [each.text for each in made if isinstance(each, Document)], bad


def token_lengths(texts: Sequence[str], tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """Return the number of tokens of each text, estimated from its bytes without a tokenizer."""
    if tokenizer is None:
        return tuple(2 + round(len(text.encode()) / BYTES_PER_TOKEN) for text in texts)
    return tuple(map(len, tokenizer.encode_batch(texts)))


def parts_of(kind: str, document: str, sizes: Mapping[str, int]) -> Iterator[Unit]:
    """Yield parts of a source, spread over it: ranges of lines where these can be read alone, or files.

    Args:
        kind: Format of the files.
        document: What is a document of plain text.
        sizes: Size of each file in bytes.
    """
    chosen = spread(list(sizes), SHORT_FILES if (kind, document) == ("text", "file") else PARTS)
    ranges = -(-PARTS // len(chosen))
    by_line = kind == "jsonl" or (kind, document) == ("text", "line")
    for file in chosen:
        size = sizes[file]
        if not by_line or compression_of(file) or size <= ranges * PART_BYTES:
            yield Unit(file, kind, size)
            continue
        for number in range(ranges):
            start = (size - PART_BYTES) * number // max(ranges - 1, 1)
            yield Unit(file, kind, PART_BYTES, start, start + PART_BYTES)


def spread(items: Sequence[str], count: int) -> list[str]:
    """Return at most `count` items at equal distances."""
    few = min(len(items), count)
    return [items[number * len(items) // few] for number in range(few)]


def read_part(unit: Unit, source: Source, limit: int) -> tuple[list[Record | BadRecord], int]:
    """Return the first records of a part, and the number of bytes that they take in the file.

    A reader reports bytes now and then. After a report that reaches the limit, what follows is left out.

    Raises:
        UserError: If nothing in the file can be read.
    """
    consumed = 0

    def count(read: int) -> None:
        nonlocal consumed
        consumed += read

    found: list[Record | BadRecord] = []
    for record in until_lost(unit, READERS[unit.format].records(unit, source, None, count)):
        if isinstance(record, BadRecord) and record.whole_file:
            raise UserError(f"{record}; {remedy(record)}.")
        if consumed >= limit and unit.end is None:
            break
        found.append(record)
    return found, min(consumed, unit.size)


def document_of(files: Sequence[str], sizes: Mapping[str, int]) -> Any:
    """Return what is a document of plain text files: `file`, `paragraph` or `line`.

    Many short files are one document each. Otherwise blank lines divide documents, and without any, each line
    is one if lines are long.
    """
    if len(files) >= SEPARATE_FILES and sum(sizes.values()) / len(files) <= LONGEST_FILE:
        return "file"
    lines = [line.strip() for line in first_lines(files[0], sizes[files[0]])]
    text = [line for line in lines if line]
    starts = sum(bool(line) and not before for before, line in zip(["", *lines], lines, strict=False))
    if starts >= 3:
        return "paragraph"
    if len(text) > 1 and sum(map(len, text)) / len(text) >= LONG_LINE:
        return "line"
    return "file" if sizes[files[0]] <= LONGEST_FILE else "line"


def first_lines(file: str, size: int) -> Iterator[bytes]:
    """Yield the lines at the start of a text file.

    Raises:
        UserError: If it cannot be read.
    """
    total = 0
    try:
        for _, line in read_lines(Unit(file, "text", size), lambda _: None):
            yield line
            total += len(line)
            if total >= PART_BYTES:
                return
    except BadRecord as bad:
        raise UserError(f"{bad}; {remedy(bad)}.") from None


def with_text(source: Source, records: Sequence[Mapping[str, Any]]) -> Source:
    """Return a source with the field or the template of its text, by the names and values in records.

    A field with a usual name comes first, then fields that make a document together, then the field with the
    longest text.

    Raises:
        UserError: If there is none with text.
    """
    values: dict[str, list[str]] = {}
    for record in records:
        for name, value in flat(record):
            values.setdefault(name, []).append(value)
    enough = {name for name, found in values.items() if len(found) > MOSTLY * len(records)}
    usable = [name for name in enough if mean(len(text.split()) for text in values[name]) >= FEWEST_WORDS]
    always = {name for name, found in values.items() if len(found) == len(records)}
    usual = {name.lower(): name for name in sorted(usable)}
    chosen = next((usual[name] for name in TEXT_FIELDS if name in usual), None)
    if chosen is None:
        for names in TOGETHER:
            if names[-1] in usable and {name for name in names if not name.endswith("?")} <= enough:
                there = [name for name in names if name.removesuffix("?") in values]
                marked = [name if name in always else f"{name.removesuffix('?')}?" for name in there]
                return replace(source, template="\n\n".join(f"{{{name}}}" for name in marked))
    if not usable:
        raise UserError(without_text(source, list(values)))
    chosen = chosen or max(usable, key=lambda name: (sum(map(len, values[name])), name))
    if len(chosen) > LONGEST_NAME:
        raise UserError(
            f"The first line of {source.path} seems to be text; add a header that names the columns."
        )
    if chosen in always or not re.fullmatch(r"[\w. -]+", chosen):
        return replace(source, text=chosen)
    return replace(source, template=f"{{{chosen}?}}")  # records without it are left out


def without_text(source: Source, names: Sequence[str]) -> str:
    """Return the sentence for a source that has no field with text."""
    if not names:
        return f"{source.path} holds no text."
    there = ", ".join(f"'{name[:SHOWN]}'" for name in names[:8])
    return (
        f"{source.path} has no field with text: its fields {there} hold names or numbers; give other files, "
        "or join fields by a template (docs/data.md)."
    )


def flat(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield the names and values of the fields of a record that hold text, also inside other fields."""
    for name, value in record.items():
        if isinstance(value, str) and value.strip():
            yield f"{before}{name}", value
        elif isinstance(value, Mapping) and not before:
            yield from flat(value, f"{name}.")

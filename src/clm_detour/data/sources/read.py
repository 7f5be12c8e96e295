"""The documents of a source: all of its units one after another, or a single unit.

Decisions about single records are made in `documents`, unit by unit, in any process and order. Only the
search for texts that occurred earlier needs the whole source in its order; it is in `read_documents`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

from clm_detour.config.schema import Source
from clm_detour.data.deduplicate import Seen, digest
from clm_detour.data.sources import hub
from clm_detour.data.sources.files import ANY, file_stamp, list_files
from clm_detour.data.sources.readers import READERS, units, until_lost
from clm_detour.data.sources.records import BadRecord, OnBytes, Record, Unit
from clm_detour.data.sources.selection import Document, Selection
from clm_detour.utils.errors import UserError

OnError = Literal["stop", "skip"]
REPAIR = "repair it"
SKIP = "or leave such records out with on_error: skip"
# Settings that do not affect the documents; the stamp holds the commit of `revision`.
NO_EFFECT = ("streaming", "revision", "max_epochs", "description", "license")


def documents(
    unit: Unit, selection: Selection, on_error: OnError, counts: Counter[str], on_bytes: OnBytes
) -> Iterator[Document]:
    """Yield the documents of one unit.

    Args:
        counts: Counts the records that are left out, by reason.
        on_bytes: Function that is called now and then with the number of bytes of the file read since the
            last call.

    Raises:
        UserError: If the file cannot be read, or (with "stop") a record is bad.
    """
    reader = READERS[unit.format]
    records = until_lost(unit, reader.records(unit, selection.source, selection.fields, on_bytes))
    empty_file = unit.end is None
    for record in records:
        empty_file = False
        made = selection.document(record) if isinstance(record, Record) else record
        if isinstance(made, Document):
            yield made
        elif isinstance(made, BadRecord) and on_error == "stop":
            raise UserError(f"{made}; {remedy(made)}.") from made
        else:
            counts[made.reason] += 1
    if empty_file:
        counts["empty file"] += 1


def remedy(bad: BadRecord) -> str:
    """Return what to do about a bad record: skipping helps only if other records of the file can be read."""
    return REPAIR if bad.whole_file else f"{REPAIR}, {SKIP}"


def read_documents(
    path: str | Source,
    text_field: str = "text",
    on_error: OnError = "stop",
    counts: Counter[str] | None = None,
    on_bytes: OnBytes | None = None,
) -> Iterator[str]:
    """Yield the texts of a source, each as many times in succession as `repeat` asks for.

    Args:
        path: A file, a folder (every file in it with a known suffix, sorted) or a glob; also any fsspec URL.
            Or a source with all its settings, `text_field` among them.
        on_error: "stop" at the first bad record, or "skip" it and count it.
        counts: Counts the records that are left out, by reason; documents of white space only are always left
            out.
        on_bytes: Function that is called now and then with the number of bytes of the files read since the
            last call.

    Of `deduplicate`, only equal texts of this source are left out: near copies are found by `prepare_source`.

    Raises:
        UserError: If a file is missing or unreadable, a suffix is unknown, there is no document, or (with
            "stop") a bad one.
    """
    source = as_source(path, text_field)
    counts = Counter() if counts is None else counts
    selection = Selection.of(source)
    seen = Seen() if source.deduplicate else None
    found = False
    for unit in units(source):
        for text, copies in documents(unit, selection, on_error, counts, on_bytes or (lambda _: None)):
            if seen is not None and not seen.add(digest(text)):
                counts["duplicate"] += 1
                continue
            found = True
            for _ in range(copies):
                yield text
    if not found:
        left_out = ", ".join(f"{count} x {reason}" for reason, count in sorted(counts.items()))
        raise UserError(f"{source.path} holds no document ({left_out or 'nothing at all'}).")


def as_source(path: str | Source, text_field: str = "text") -> Source:
    """Return a source; a plain path becomes one without further settings."""
    return path if isinstance(path, Source) else Source(path=path, text=text_field)


def source_stamps(source: Source) -> list[dict[str, Any]]:
    """Return the present origin of a source's documents: files with size and modification time, or a commit.

    Raises:
        UserError: If there is none.
    """
    evaluation = [file for path in source.decontaminate for file in list_files(path, format=ANY)]
    if source.format == "hub":
        return [*hub.stamp(source), *map(file_stamp, evaluation)]
    return [*map(file_stamp, [*list_files(source.path, source.format, source.split), *evaluation])]


def chosen_settings(source: Source) -> dict[str, Any]:
    """Return the settings that decide the documents of a source, except those with default values."""
    here, usual = dataclasses.asdict(source), dataclasses.asdict(Source(path=source.path, text=source.text))
    chosen = {key: value for key, value in here.items() if value != usual[key] and key not in NO_EFFECT}
    if "repeat" in chosen:
        chosen["repeat"] = [list(item) for item in source.repeat.items()]  # their order matters
    return chosen


def check_first_record(source: Source, on_error: OnError = "stop") -> None:
    """Read the first record of a source, so that a mistake that affects all records is found before any work.

    Raises:
        UserError: If there is no file or no record, or (with "stop") the first record is bad.
    """
    selection = Selection.of(dataclasses.replace(source, decontaminate=[]))
    for path in source.decontaminate:
        list_files(path, format=ANY)
    for unit in units(source):
        records = until_lost(
            unit, READERS[unit.format].records(unit, source, selection.fields, lambda _: None)
        )
        record = next(records, None)
        if record is None:
            continue  # an empty file
        made = selection.document(record) if isinstance(record, Record) else record
        if on_error == "stop" and isinstance(made, BadRecord):
            # The message about a field names the existing ones.
            then = "" if made.reason == "no such field" else f"; {remedy(made)}"
            raise UserError(f"{made}{then}.") from made
        return
    raise UserError(f"{source.path} holds no record; give files that hold text.")

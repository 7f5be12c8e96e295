"""Arrow files, as `Dataset.save_to_disk` writes them: a folder of them, or one folder for each split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow as pa

from clm_detour.config.expressions.fields import Field
from clm_detour.config.schema import Source
from clm_detour.data.sources.columns import batch_records, needed_columns
from clm_detour.data.sources.files import open_raw, whole_file
from clm_detour.data.sources.records import BadRecord, OnBytes, Record, Unit, lost
from clm_detour.utils.errors import on_one_line

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def units(file: str, format: str, source: Source) -> list[Unit]:
    """Return the file as one unit: `datasets` divides large sets into files of 500 MB."""
    return [whole_file(file, format)]


def records(
    unit: Unit, source: Source, fields: Sequence[Field] | None, on_bytes: OnBytes
) -> Iterator[Record | BadRecord]:
    """Yield a record for each row."""
    row = reported = 0
    try:
        with open_raw(unit.file) as raw:
            if not unit.size:
                return
            check_end(raw)
            stream = pa.ipc.open_stream(raw)
            columns = needed_columns(unit.file, stream.schema.names, fields)
            for batch in stream:
                yield from batch_records(batch.select(columns), unit.file, row)
                row += len(batch)
                on_bytes(raw.tell() - reported)
                reported = raw.tell()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise lost(
            f"{unit.file} is not a sound Arrow stream after row {row} ({on_one_line(error)})"
        ) from error
    on_bytes(unit.size - reported)


def check_end(raw: IO[bytes]) -> None:
    """Check that a stream is complete, since Arrow accepts a file that was cut between two batches."""
    raw.seek(0, 2)
    raw.seek(max(raw.tell() - len(END_OF_STREAM), 0))
    if raw.read() != END_OF_STREAM:
        raise pa.ArrowInvalid("the end is missing")
    raw.seek(0)

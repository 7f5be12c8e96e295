"""Parquet files. Only the columns that are needed are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from clm_detour.config.expressions.fields import Field
from clm_detour.config.schema import Source
from clm_detour.data.sources.columns import ROWS_PER_BATCH, batch_records, needed_columns
from clm_detour.data.sources.files import open_raw, whole_file
from clm_detour.data.sources.records import UNIT_BYTES, BadRecord, OnBytes, Record, Unit, lost
from clm_detour.utils.errors import on_one_line


def units(file: str, format: str, source: Source) -> list[Unit]:
    """Return groups of row groups of about UNIT_BYTES each."""
    whole = [whole_file(file, format)]
    size = whole[0].size
    if size < 2 * UNIT_BYTES:
        return whole
    try:
        with open_raw(file) as raw:
            metadata = pq.ParquetFile(raw).metadata
    except (pa.ArrowException, OSError):
        return whole  # reading it will raise an error with the reason
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    rows = max(sum(sizes), 1)
    found: list[Unit] = []
    start = before = seen = 0
    for group, count in enumerate(sizes, start=1):
        seen += count
        done = size * before // rows, size * seen // rows
        if done[1] - done[0] >= UNIT_BYTES or group == len(sizes):
            found.append(Unit(file, format, done[1] - done[0], start, group, before))
            start, before = group, seen
    return found or whole


def records(
    unit: Unit, source: Source, fields: Sequence[Field] | None, on_bytes: OnBytes
) -> Iterator[Record | BadRecord]:
    """Yield a record for each row."""
    row = unit.before
    reported = 0
    try:
        with open_raw(unit.file) as raw:
            table = pq.ParquetFile(raw)
            groups = range(unit.start, table.num_row_groups if unit.end is None else unit.end)
            columns = needed_columns(unit.file, table.schema_arrow.names, fields)
            rows = sum(table.metadata.row_group(group).num_rows for group in groups)
            for batch in table.iter_batches(ROWS_PER_BATCH, row_groups=list(groups), columns=columns):
                yield from batch_records(batch, unit.file, row)
                row += len(batch)
                done = unit.size * (row - unit.before) // rows
                on_bytes(done - reported)
                reported = done
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise lost(
            f"{unit.file} is not a sound parquet file after row {row} ({on_one_line(error)})"
        ) from error
    on_bytes(unit.size - reported)

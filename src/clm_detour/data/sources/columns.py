"""Converting Arrow's columns to records, for parquet files and for those of `datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from clm_detour.config.expressions.fields import Field, missing_field
from clm_detour.data.sources.records import BadRecord, Record

ROWS_PER_BATCH = 256


def needed_columns(file: str, names: list[str], fields: Sequence[Field] | None) -> list[str]:
    """Return the columns among `names` that hold the fields.

    Raises:
        BadRecord: If one is missing.
    """
    if fields is None:
        return names
    found = {field: field.column(names) for field in fields}
    for field, column in found.items():
        if column is None and not field.optional:
            raise BadRecord("no such field", file + missing_field(field.name, names))
    return list(dict.fromkeys(column for column in found.values() if column is not None))


def batch_records(batch: pa.RecordBatch, file: str, before: int) -> Iterator[Record]:
    """Yield the rows of a batch, whose first row has the number `before` + 1."""
    names = batch.schema.names
    columns = [values(column) for column in batch.columns]
    rows = zip(*columns, strict=True) if columns else (() for _ in range(len(batch)))
    for number, row in enumerate(rows, start=before + 1):
        yield Record(f"{file} row {number}", dict(zip(names, row, strict=True)))


def values(column: pa.Array) -> list[Any]:
    """Return a column's values. Bytes that are not UTF-8 become surrogates, which are found later.

    Binary columns are text too: many writers of parquet do not mark their strings as such.
    """
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if not is_string(column.type):
        return column.to_pylist()
    return [
        value if value is None else value.decode(errors="surrogateescape")
        for value in column.cast(pa.large_binary()).to_pylist()
    ]


def is_string(kind: pa.DataType) -> bool:
    """Return whether a type is one of text, marked as such or not."""
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests)

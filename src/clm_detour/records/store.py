"""Read and write records: dataclasses that one part of the program writes as JSON and another part reads.

A dataclass is the one definition of a record's form. Its field names are the JSON keys. A field with a
default may be absent from a file, as older versions wrote fewer keys; keys without a field are ignored.
`format` is the version of the form: a file with another number than the dataclass has is not read. The first
release, 0.1.0, wrote no `format`.

A number that is not finite is null in JSON, since JSON has no NaN, and becomes NaN again when it is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter

from clm_detour.utils.errors import UserError
from clm_detour.utils.files import finite, read_json, read_json_lines, write_json

T = TypeVar("T")

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number; NaN where the file has null."""

Interval = tuple[float, float]
"""Lower and upper end of an interval."""

OptionalInterval = Annotated[
    Interval | None,
    BeforeValidator(lambda ends: None if isinstance(ends, list | tuple) and None in ends else ends),
]
"""An interval, or None where there is none or an end of it is not a number."""

left_out_if_none = Field(exclude_if=lambda value: value is None)
"""Annotation of a field whose key is not written where its value is None."""


adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def parse(kind: type[T], content: Any) -> T:
    """Return the record that JSON content describes.

    Raises:
        ValueError: If the content does not have the form of `kind`.
    """
    return adapter(kind).validate_python(content)


def as_json(record: Any, kind: Any = None) -> Any:
    """Return a record as JSON content: dicts, lists, strings, finite numbers, booleans and None.

    Args:
        record: The record.
        kind: The type of the record, where it is no dataclass, like `list[FilledMask]`.
    """
    return finite(adapter(kind or type(record)).dump_python(record, mode="json", by_alias=True))


def read(kind: type[T], path: str | Path) -> T:
    """Read a record from a JSON file.

    Raises:
        UserError: If the file is missing, is not JSON or does not have the form of `kind`.
    """
    content = read_json(path)
    try:
        return parse(kind, content)
    except ValueError as error:
        raise UserError(
            f"{path} does not have the form that this version reads; delete it and run the step again."
        ) from error


def read_or_none(kind: type[T], path: Path) -> T | None:
    """Read a record as `read`, or return None if there is no file."""
    return read(kind, path) if path.exists() else None


def write(record: Any, path: str | Path, kind: Any = None) -> None:
    """Write a record as indented JSON, atomically; `kind` is that of `as_json`.

    Raises:
        UserError: If the file cannot be written.
    """
    write_json(path, as_json(record, kind))


def as_line(record: Any) -> str:
    """Return a record as one line of a file with a JSON object a line."""
    return json.dumps(as_json(record)) + "\n"


def read_lines(kind: type[T], path: str | Path) -> Iterator[T]:
    """Yield the records of a file with a JSON object a line, which may not exist.

    Lines that are broken or have another form are skipped, since a process that is killed while it writes
    leaves half of a line.
    """
    for content in read_json_lines(path):
        with suppress(ValueError):
            yield parse(kind, content)

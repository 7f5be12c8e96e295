"""Read a value of a record by the name in a recipe: `title`, `meta.score`, `turns[0].value`, `input?`.

A record may lack a field whose name ends in `?`. A column with the name `meta.score` wins over `score` in
`meta`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clm_detour.utils.errors import nearest

NAME = r"[^\W\d]\w*(?:\.\w+|\[\d+\])*"
SHOWN = 40  # characters of a field's name in a message


class FieldProblem(Exception):
    """A record that lacks a field or has a wrong value, counted by `reason`. The message holds no value."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Field:
    """The name of a field, and its path through nested records and lists."""

    name: str
    path: tuple[str | int, ...]
    optional: bool = False

    @classmethod
    def parse(cls, text: str) -> Field:
        """Return the field of a name. Any text can name a column; a dotted one can also be a path."""
        optional = text.endswith("?")
        name = text.removesuffix("?")
        if not re.fullmatch(NAME, name):
            return cls(name, (name,), optional)
        steps = re.findall(r"\w+", name)
        return cls(name, tuple(int(step) if step.isdigit() else step for step in steps), optional)

    def of(self, record: Mapping[str, Any]) -> Any:
        """Return the value in a record, or None if an optional field is missing.

        Raises:
            FieldProblem: If the record has no such field.
        """
        if self.name in record:
            return record[self.name]
        value: Any = record
        for step in self.path:
            if has_step(value, step):
                value = value[step]
            elif self.optional or (value is None and step != self.path[0]):
                return None
            else:
                raise FieldProblem("no such field", missing_field(self.name, list(record)))
        return value

    def column(self, names: Sequence[str]) -> str | None:
        """Return the column in `names` that holds the field, or None."""
        return next((name for name in (self.name, str(self.path[0])) if name in names), None)


def has_step(value: Any, step: str | int) -> bool:
    """Return whether a nested record has a key, or a list an index."""
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, Mapping) and step in value


def missing_field(name: str, names: Sequence[str]) -> str:
    """Return the end of a sentence about a record or file whose fields are `names`."""
    near = nearest(name, names)
    there = ", ".join(f"'{other[:SHOWN]}'" for other in names[:8]) or "none"
    return f" has no field '{name}'; its fields: {there}" + (
        f"; did you mean '{near[:SHOWN]}'?" if near else ""
    )


def missing_column(name: str, names: Sequence[str]) -> str:
    """Return the end of a sentence about a file whose first line gives the names.

    The names are not shown, because the first line of a file without a header is text.
    """
    return f" has no field '{name}' among its {len(names)} columns; is the file's first line a header?"


def kind(value: Any) -> str:
    """Return the type of a value, for a message that must not show the value."""
    return "null" if value is None else type(value).__name__

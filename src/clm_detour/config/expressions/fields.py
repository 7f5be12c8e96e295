"""Values of a record by the names that a recipe gives: `title`, `meta.score`, `turns[0].value`, `input?`.

A name with `?` at its end is one that a record may lack. A column that is called `meta.score` as a whole wins
over `score` in `meta`.
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
    """A record does not have what is asked of it: `reason` is what it is counted as; the message holds no value."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Field:
    """One name, and the way to it through nested records and lists."""

    name: str
    path: tuple[str | int, ...]
    optional: bool = False

    @classmethod
    def parse(cls, text: str) -> Field:
        """Any text names a column of that name; a dotted one may also be a path."""
        optional = text.endswith("?")
        name = text.removesuffix("?")
        if not re.fullmatch(NAME, name):
            return cls(name, (name,), optional)
        steps = re.findall(r"\w+", name)
        return cls(name, tuple(int(step) if step.isdigit() else step for step in steps), optional)

    def of(self, record: Mapping[str, Any]) -> Any:
        """The value in `record`; None where there is none, if that is allowed.

        Raises:
            FieldProblem: the record has no such field.
        """
        if self.name in record:
            return record[self.name]
        value: Any = record
        for step in self.path:
            if leads_on(value, step):
                value = value[step]
            elif self.optional or (value is None and step != self.path[0]):
                return None
            else:
                raise FieldProblem("no such field", missing_field(self.name, list(record)))
        return value

    def column(self, names: Sequence[str]) -> str | None:
        """The column among `names` that holds it, if there is one."""
        return next((name for name in (self.name, str(self.path[0])) if name in names), None)


def leads_on(value: Any, step: str | int) -> bool:
    """Whether a nested record or a list has something there."""
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, Mapping) and step in value


def missing_field(name: str, names: Sequence[str]) -> str:
    """The end of a sentence about a record or file whose fields are `names`."""
    near = nearest(name, names)
    there = ", ".join(f"'{other[:SHOWN]}'" for other in names[:8]) or "none"
    return f" has no field '{name}'; its fields: {there}" + (
        f"; did you mean '{near[:SHOWN]}'?" if near else ""
    )


def missing_column(name: str, names: Sequence[str]) -> str:
    """The same where a file's first line gives the names: without a header that line is text, so none is shown."""
    return f" has no field '{name}' among its {len(names)} columns; is the file's first line a header?"


def kind(value: Any) -> str:
    """What a value is, for a message that must not show it."""
    return "null" if value is None else type(value).__name__

"""A document out of a record's fields: a Python format string such as "{prompt}\\n\\n{response}".

A field with a question mark may be missing, null or blank: then it goes with the text between it and the
field before. "{prompt}\\n\\n{input?}\\n\\n{response}" gives two paragraphs or three, and no empty one.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from clm_detour.config.expressions.fields import Field, FieldProblem, kind
from clm_detour.utils.errors import UserError


class Part(NamedTuple):
    """A field and the text before it; at the template's end there is none."""

    before: str
    field: Field | None


@dataclass(frozen=True)
class TextField:
    """The simplest document: one field that holds text."""

    field: Field

    @property
    def fields(self) -> list[Field]:
        """What it reads."""
        return [self.field]

    def render(self, record: Mapping[str, Any]) -> str:
        """The text of `record`.

        Raises:
            FieldProblem: there is none.
        """
        value = self.field.of(record)
        if not isinstance(value, str):
            inside = (
                f"; name a field inside it, like {self.field.name}.NAME" if isinstance(value, Mapping) else ""
            )
            raise FieldProblem(
                "text not a string", f": '{self.field.name}' is {kind(value)}, not a string{inside}"
            )
        return value


@dataclass(frozen=True)
class Template:
    """A document of several fields."""

    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template.

        Raises:
            UserError: it is no format string of plain field names.
        """
        parts, before = [], ""
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise UserError(
                f"{text!r} is not a template ({error}); write {{{{ and }}}} for braces in the text."
            ) from None
        for literal, name, spec, conversion in pieces:
            before += literal
            if name is None:
                continue
            if not name.strip("?") or spec or conversion:
                raise UserError(
                    f"{text!r} is not a template: between braces goes the name of a field and nothing else."
                )
            parts.append(Part(before, Field.parse(name)))
            before = ""
        if not parts:
            raise UserError(f"{text!r} names no field; write one between braces, like {{text}}.")
        return cls((*parts, Part(before, None)))

    @property
    def fields(self) -> list[Field]:
        """What it reads."""
        return [part.field for part in self.parts if part.field is not None]

    def render(self, record: Mapping[str, Any]) -> str:
        """The text of `record`.

        Raises:
            FieldProblem: a field that must be there is missing or holds neither text nor a number.
        """
        written: list[str] = []
        omitted = False
        for before, field in self.parts:
            value = "" if field is None else as_text(field, record)
            if value is None:
                omitted = True
                continue
            # What stood before the first field leads nowhere once that field is gone.
            written += [before.lstrip() if omitted and not written else before, value]
        return "".join(written)


def as_text(field: Field, record: Mapping[str, Any]) -> str | None:
    """A field's value in a document; None if it is optional and there is none."""
    value = field.of(record)
    if field.optional and (value is None or (isinstance(value, str) and not value.strip())):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    hint = f"; write {{{field.name}?}} if it may be" if value is None else ""
    raise FieldProblem("field not text", f": '{field.name}' is {kind(value)}, not text{hint}")

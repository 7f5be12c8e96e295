"""Make a document of several fields of a record by a Python format string, like "{prompt}\\n\\n{response}".

A field with a question mark may be missing, null or blank. Then the text between it and the field before is
left out too: "{prompt}\\n\\n{input?}\\n\\n{response}" gives two or three paragraphs, and no empty one.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from clm_detour.config.expressions.fields import Field, FieldProblem, kind
from clm_detour.utils.errors import UserError


class Part(NamedTuple):
    """A field and the text before it. The last part of a template has no field."""

    before: str
    field: Field | None


@dataclass(frozen=True)
class TextField:
    """A document that is one field with text."""

    field: Field

    @property
    def fields(self) -> list[Field]:
        """The fields that the document is made of."""
        return [self.field]

    def render(self, record: Mapping[str, Any]) -> str:
        """Return the text of a record.

        Raises:
            FieldProblem: If the field is missing or is not text.
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
    """A document that is made of several fields."""

    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template.

        Raises:
            UserError: If the text is not a format string of plain field names.
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
        """The fields that the document is made of."""
        return [part.field for part in self.parts if part.field is not None]

    def render(self, record: Mapping[str, Any]) -> str:
        """Return the text of a record.

        Raises:
            FieldProblem: If a field that is not optional is missing, or is neither text nor a number.
        """
        written: list[str] = []
        omitted = False
        for before, field in self.parts:
            value = "" if field is None else as_text(field, record)
            if value is None:
                omitted = True
                continue
            # Without the first field, the text before the next one is at the start of the document.
            written += [before.lstrip() if omitted and not written else before, value]
        return "".join(written)


def as_text(field: Field, record: Mapping[str, Any]) -> str | None:
    """Return a field's value as text, or None if it is optional and missing or blank."""
    value = field.of(record)
    if field.optional and (value is None or (isinstance(value, str) and not value.strip())):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    hint = f"; write {{{field.name}?}} if it may be" if value is None else ""
    raise FieldProblem("field not text", f": '{field.name}' is {kind(value)}, not text{hint}")

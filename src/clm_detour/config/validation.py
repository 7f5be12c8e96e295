"""Build a dataclass from plain values, or say in one sentence what is wrong with them.

The annotations of a dataclass say what each key can be (`Literal`, `Annotated[int, Field(ge=1)]`). Pydantic
checks them without conversions: `true` is not 1, and "1" is not 1. This module puts pydantic's errors into
words.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from clm_detour.config.annotations import bare_type, describe, fields_of, members, shown
from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import not_known, unknown_key

Schema = TypeVar("Schema")
UNKNOWN = "unexpected_keyword_argument"
KEY = ("[key]",)  # the end of the location of an error in the key of a dictionary
SECTION = ("dataclass_type", "dict_type")


def validate(schema: type[Schema], tree: Any, where: str = "") -> Schema:
    """Build a dataclass from plain values; nested dataclasses are built too.

    Args:
        schema: A dataclass whose annotations say what each key can be. A field without a default is required.
        tree: Dictionaries, lists and scalars, as YAML has them.
        where: The place of `tree` in its file, like `evaluate.tasks`, for the sentence.

    Raises:
        UserError: If a key is unknown or missing, or a value is not one that its annotation allows.
    """
    built, errors = build(schema, tree)
    if errors:
        # A misspelled key that is required is also a missing one, but the misspelling says more.
        first = next(filter(is_misnamed, errors), next(filter(fits_its_shape, errors), errors[0]))
        raise UserError(sentence_of(first, schema, where))
    return cast(Schema, built)


def check_keys(schema: type, tree: Any) -> None:
    """Check keys and sections only, in values whose `${...}` are not resolved.

    Raises:
        UserError: If a key is unknown, or a section is a single value.
    """
    for error in build(schema, tree)[1]:
        value = error["input"]
        is_single = error["type"] in SECTION and value is not None and not str(value).startswith("${")
        if is_misnamed(error) or is_single:
            raise UserError(sentence_of(error, schema, ""))


def is_misnamed(error: ErrorDetails) -> bool:
    """Return whether an error is about the name of a key, not about its value."""
    return error["type"] == UNKNOWN or error["loc"][-1:] == KEY


def fits_its_shape(error: ErrorDetails) -> bool:
    """Return whether an error is not merely that a section is no scalar, where a key can be either."""
    return not (error["type"] == "bool_type" and isinstance(error["input"], dict))


def build(schema: type[Schema], tree: Any) -> tuple[Schema | None, list[ErrorDetails]]:
    """Return the dataclass and no errors, or None and pydantic's errors.

    The values go through JSON, because only there pydantic's strict mode builds a dataclass from a section
    and a tuple from a list.
    """
    try:
        text = json.dumps(tree, default=str)
        return adapter(cast(Hashable, schema)).validate_json(text, strict=True, extra="forbid"), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


@cache
def adapter(schema: type[Schema]) -> TypeAdapter[Schema]:
    """Return pydantic's validator of a dataclass, made once."""
    return TypeAdapter(schema)


def sentence_of(error: ErrorDetails, schema: type, where: str) -> str:
    """Return one of pydantic's errors as a sentence with the key, the value, what it can be and a remedy."""
    kind, loc = error["type"], error["loc"]
    is_key, is_short = loc[-1:] == KEY, kind == "missing" and isinstance(loc[-1], int)
    place = Place.find(schema, loc[:-2] if is_key else loc[:-1] if is_short else loc, where)
    if is_key:
        place.annotation = typing.get_args(bare_type(place.annotation))[0]
    key, value, phrase = place.key, shown(error["input"]), describe(place.annotation)
    if kind == UNKNOWN:
        known = list(fields_of(bare_type(place.annotation)))
        return unknown_key(str(error["loc"][-1]), f"{key}." if key else "", known)
    if kind == "missing" and not is_short:
        return f"{key} is not set; add {key}=VALUE to the command or write it into the config."
    if kind == "value_error":
        return f"{key}: {error['ctx']['error']}"
    if kind == "too_short":
        return f"{key} is empty; use {phrase}."
    if kind == "finite_number":
        return f"{key}: {value} is not finite; use {phrase}{place.default}."
    if len(members(place.annotation)) == 1:
        if kind in SECTION:
            return f"{key} is a section of `key: value` pairs, not {value}."
        if kind == "literal_error" and isinstance(error["input"], str):
            choices = typing.get_args(bare_type(place.annotation))
            return not_known(error["input"], [str(choice) for choice in choices], key)
        if kind == "string_type" and isinstance(error["input"], int | float) and phrase[:8] == "a string":
            return f"{key}: {value} is not a string; put it in quotes."
        if kind.startswith(("greater_than", "less_than")):
            size = "small" if kind.startswith("greater") else "large"
            return f"{key}: {value} is too {size}; use {phrase}{place.default}."
    return f"{key}: {value} is not valid; use {phrase}{place.default}."


@dataclasses.dataclass
class Place:
    """The place of an error: its dotted key, the annotation there, and the default in words, if any."""

    key: str
    annotation: Any
    default: str = ""

    @classmethod
    def find(cls, schema: type, loc: tuple[str | int, ...], where: str) -> Place:
        """Follow pydantic's location of an error through the annotations, as far as they go."""
        place = cls(where, schema)
        for number, step in enumerate(loc, start=1):
            section = section_of_union(place.annotation, step)
            if section is not None and number < len(loc):  # the error is inside it
                place.annotation = section
                continue
            bare = bare_type(place.annotation)
            if dataclasses.is_dataclass(bare):
                if step not in fields_of(bare):
                    break
                place.annotation = fields_of(bare)[step]
                place.default = default_in_words(bare, str(step))
            elif typing.get_origin(bare) in (dict, list, tuple):
                is_dict = typing.get_origin(bare) is dict
                place.annotation, place.default = typing.get_args(bare)[is_dict], ""
            else:
                break  # pydantic's name for a member of a union
            plain = isinstance(step, str) and re.fullmatch(r"[\w/-]+", step)
            place.key += (f".{step}" if place.key else str(step)) if plain else f"[{step!r}]"
        return place


def section_of_union(annotation: Any, name: str | int) -> Any:
    """Return the dataclass of this name among several types that a value can have, or None."""
    several = [one for one in members(annotation) if isinstance(one, type)]
    sections = {one.__name__: one for one in several if dataclasses.is_dataclass(one)}
    return sections.get(str(name)) if len(members(annotation)) > 1 else None


def default_in_words(schema: Any, name: str) -> str:
    """Return the default of a dataclass's field for the end of a sentence, if it is a single value."""
    default = next(field.default for field in dataclasses.fields(schema) if field.name == name)
    return "" if default is dataclasses.MISSING or default is None else f" (the default is {shown(default)})"

"""Put a type annotation into words, for error messages and for docs/config.md."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

YAML_WORDS = {"None": "null", "True": "true", "False": "false"}
LONGEST = 80  # characters of a value in a sentence


def describe(annotation: Any) -> str:
    """Return in words what a value can be, like "an integer of 1 or more, or null"."""
    words = listed([describe_member(member) for member in members(annotation)])
    return f"{words}, or null" if is_optional(annotation) else words


def describe_member(annotation: Any) -> str:
    """Return in words what a value of one type can be; the description in a `Field` replaces these words."""
    metadata = list(flat_metadata(annotation))
    for one in metadata:
        if isinstance(one, FieldInfo) and one.description:
            return one.description
    bare = bare_type(annotation)
    arguments = typing.get_args(bare)
    origin = typing.get_origin(bare) or bare
    if origin is Literal:
        return listed([str(choice) for choice in arguments])
    if origin in (int, float):
        return ("an integer" if origin is int else "a number") + bounds_in_words(metadata)
    if origin is list or arguments[1:] == (...,):
        return f"a list, each item {describe(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)} items, each {describe(arguments[0])}"
    if origin is dict and arguments[1] is not Any:
        return f"a section of `key: value` pairs, each value {describe(arguments[1])}"
    if origin is dict or dataclasses.is_dataclass(origin):
        return "a section of `key: value` pairs"
    return {bool: "true or false", str: "a string"}.get(origin, "any value")


def bounds_in_words(metadata: list[Any]) -> str:
    """Return the bounds of a number in words, like " above 0"; an empty string if there are none."""
    least = next((one.ge for one in metadata if isinstance(one, Ge)), None)
    above = next((one.gt for one in metadata if isinstance(one, Gt)), None)
    most = next((one.le for one in metadata if isinstance(one, Le)), None)
    below = next((one.lt for one in metadata if isinstance(one, Lt)), None)
    if least is not None and most is not None:
        return f" from {least} to {most}"
    low = f" of {least} or more" if least is not None else f" above {above}" if above is not None else ""
    high = f" of {most} or less" if most is not None else f" below {below}" if below is not None else ""
    return " and".join(filter(None, (low, high)))


def flat_metadata(annotation: Any) -> Iterator[Any]:
    """Yield what `Annotated` adds to a type, and the bounds that a pydantic `Field` holds."""
    for one in getattr(annotation, "__metadata__", ()):
        yield one
        if isinstance(one, FieldInfo):
            yield from one.metadata


def members(annotation: Any) -> list[Any]:
    """Return the types of a union other than None, or a list of the type itself."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return [one for one in typing.get_args(annotation) if one is not type(None)]
    return [annotation]


def is_optional(annotation: Any) -> bool:
    """Return whether None is allowed."""
    return type(None) in typing.get_args(annotation)


def bare_type(annotation: Any) -> Any:
    """Return the first type of a union, without what `Annotated` adds to it."""
    first = members(annotation)[0]
    return typing.get_args(first)[0] if typing.get_origin(first) is Annotated else first


def fields_of(schema: Any) -> dict[Any, Any]:
    """Return the annotations of a dataclass by the names of its fields."""
    return typing.get_type_hints(schema, include_extras=True)


def listed(words: Sequence[str]) -> str:
    """Join words as in "a, b or c"."""
    return " or ".join([*([", ".join(words[:-1])] if words[1:] else []), words[-1]])


def shown(value: Any) -> str:
    """Return a value for a sentence: null, true and false as in YAML, and long values cut."""
    text = repr(value)
    return YAML_WORDS.get(text, text if len(text) <= LONGEST else f"{text[:LONGEST]}...")

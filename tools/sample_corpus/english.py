"""Pieces of English text: phrases that carry entity spans, articles, plurals."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

Span = tuple[int, int, str]


class Phrase(NamedTuple):
    """Text with the spans (start, end, type) of the entities in it."""

    text: str
    spans: tuple[Span, ...] = ()


def chain(phrases: Iterable[Phrase]) -> Phrase:
    """Return phrases joined to one, with the spans of all."""
    text, spans = "", []
    for phrase in phrases:
        spans += [(len(text) + start, len(text) + end, kind) for start, end, kind in phrase.spans]
        text += phrase.text
    return Phrase(text, tuple(spans))


def stacked(phrases: Iterable[Phrase], marks: Iterable[str], separator: str = "\n") -> Phrase:
    """Return phrases below each other (or divided by `separator`), each after its mark."""
    pieces: list[Phrase] = []
    for mark, phrase in zip(marks, phrases, strict=False):
        pieces += [Phrase((separator if pieces else "") + mark), phrase]
    return chain(pieces)


def a_or_an(following: str) -> str:
    """Return the indefinite article that the following text takes when it is read aloud."""
    word = re.match(r"[\w-]*", following.lstrip("“\"'(")).group()  # type: ignore[union-attr]
    lower = word.lower()
    if word[:1].isdigit():
        return "an" if re.match(r"8|1[18](?!\d)", word) else "a"
    if re.match(r"[A-Z]-|[A-Z]+\d|[A-Z]{2,}(?![a-z])|[A-Z]$", word) and lower not in SPOKEN:
        return "an" if word[0] in "AEFHILMNORSX" else "a"
    if (
        lower.startswith(("uni", "use", "usu", "uri", "uro", "ute", "ukr", "eu", "one", "once"))
        and lower[:4] != "unin"
    ):
        return "a"
    return "an" if lower.startswith(("a", "e", "i", "o", "u", "hour", "honor", "honest", "heir")) else "a"


SPOKEN = frozenset({"her2", "rankl", "ras", "nafld", "sars", "smad4", "ros", "flair"})
AFTER_NOUN = re.compile(r" (?:at|within|per|of|in|by|from|for|on|to|around) ")
SINGULAR_S = ("ss", "is", "us", "diabetes", "herpes", "measles")


def is_plural(value: Any) -> bool:
    """Return whether a value takes a plural verb: a list of several, a number not 1, or a noun in -s."""
    if isinstance(value, (list, tuple)) and not isinstance(value, Phrase):
        return len(value) != 1 or is_plural(value[0])
    if isinstance(value, int):
        return value != 1
    value = getattr(value, "name", value)
    noun = AFTER_NOUN.split(value.text if isinstance(value, Phrase) else str(value))[0]
    return noun.endswith("s") and not noun.endswith(SINGULAR_S)


def upper_first(text: str) -> str:
    """Return `text` with a capital first letter."""
    return text[:1].upper() + text[1:]

"""A tiny text grammar: templates with slots and choices, written out with the spans of their entities.

A template is plain text with braces:

    {a man|a woman|}        one of the alternatives, which may nest; an empty one makes the part optional
    {drug} {drug.action}    the document's fact of that name, its attribute, or else the rule of that name
    {Drug}                  the same with a capital first letter
    {drug.adverse 2}        two random items of a list, joined by "and"; `{x 3 or}` and `{x 2 ,}` join
                            otherwise, and `{x all}` takes every item in order
    {symptoms:is/are}       the first word if the fact is one thing, the second if it is many
    {a} {A}                 "a" or "an", as the next word asks
    {20-80} {1.5-3.0}       a random number with as many decimals as shown
    \\n                     a line break

Rules are read from `phrases/*.txt`: `:: name` opens a rule, every line below it is one alternative. Within a
document no alternative of a rule comes back before all of them have been used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from sample_corpus.choices import Choices
from sample_corpus.english import Phrase, Span, a_or_an, is_plural, upper_first

SLOT = re.compile(
    r"(?P<path>[A-Za-z_][\w.]*)(?: (?P<count>\d+|all))?(?: (?P<joiner>and|or|,))?"
    r"(?::(?P<words>[\w ]*/[\w ]*))?"
)
NUMBER = re.compile(r"(\d+(?:\.(\d+))?)-(\d+(?:\.\d+)?)")


class Rule(NamedTuple):
    """A fact that stands for a rule: its text is chosen again wherever it is written."""

    name: str


class Document:
    """A text that is being written: its facts, its choices, and the entity spans so far."""

    def __init__(self, grammar: Grammar, choices: Choices, facts: dict[str, Any] | None = None):
        self.grammar = grammar
        self.choices = choices
        self.facts = {} if facts is None else facts
        self.parts: list[str] = []
        self.spans: list[Span] = []
        self.length = 0
        self.article = False
        self.capital = False
        self.used: dict[str, int] = {}

    @property
    def text(self) -> str:
        """Text that has been written."""
        return "".join(self.parts)

    def write(self, text: str, spans: Sequence[Span] = ()) -> None:
        """Append text, after a pending article and with a pending capital; two blanks become one."""
        if not text:
            return
        if text[0] in " \n.,;)":
            text, spans = self.close_up(text, spans)
            if not text:
                return
        if self.article:
            article = a_or_an(text) + " "
            self.article = False
            self.write(article)
        if self.capital:
            self.capital = False
            text = upper_first(text)
        for start, end, kind in spans:
            self.spans.append((self.length + start, self.length + end, kind))
        self.parts.append(text)
        self.length += len(text)

    def close_up(self, text: str, spans: Sequence[Span]) -> tuple[str, Sequence[Span]]:
        """Drop a leading blank after white space, and a blank that stands before a line break or a mark."""
        last = self.parts[-1][-1:] if self.parts else "\n"
        if text[0] == " " and last in " \n":
            return text[1:], [(start - 1, end - 1, kind) for start, end, kind in spans]
        if text[0] != " " and last == " ":
            self.parts[-1:] = [self.parts[-1][:-1]] if self.parts[-1] != " " else []
            self.length -= 1
        return text, spans

    def put(self, value: Any) -> None:
        """Append a fact of any kind: text, phrase, number, list, or table row (by its name)."""
        if isinstance(value, Phrase):
            self.write(value.text, value.spans)
        elif isinstance(value, Rule):
            self.rule(value.name)
        elif isinstance(value, str):
            self.write(value)
        elif isinstance(value, (list, tuple)):
            self.join(value, "and")
        elif isinstance(value, (int, float)):
            self.write(str(value))
        else:
            self.put(value.name)

    def join(self, values: Sequence[Any], joiner: str) -> None:
        """Append "x", "x and y" or "x, y, and z"; the joiner may also be "or" or a bare comma."""
        for place, value in enumerate(values):
            if place:
                last = place == len(values) - 1
                if joiner == "," or not last:
                    self.write(", ")
                else:
                    self.write(f", {joiner} " if place > 1 else f" {joiner} ")
            self.put(value)

    def rule(self, name: str) -> None:
        """Append one alternative of the grammar's rule `name`."""
        ways = self.grammar.rules[name]
        count = len(ways)
        index = int(self.choices.random() * count)
        if count > 1:
            used = self.used.get(name, 0)
            while used >> index & 1:
                index = (index + 1) % count
            used |= 1 << index
            self.used[name] = 0 if used == (1 << count) - 1 else used
        for step in ways[index]:
            step(self)

    def say(self, template: str) -> None:
        """Append a template given in code."""
        for step in self.grammar.compile(template):
            step(self)

    def value(self, path: tuple[str, ...]) -> Any:
        """Return the fact `path[0]`, or its attribute that the rest of the path names, or None."""
        value = self.facts.get(path[0])
        for attribute in path[1:]:
            value = getattr(value, attribute)
        return value

    def make(self, name: str) -> Phrase:
        """Return a rule's text as a phrase, without writing it: a fact that stays the same from then on."""
        kept = self.parts, self.spans, self.length, self.article, self.capital
        self.parts, self.spans, self.length, self.article, self.capital = [], [], 0, False, False
        self.rule(name)
        made = Phrase(self.text, tuple(self.spans))
        self.parts, self.spans, self.length, self.article, self.capital = kept
        return made


Step = Callable[[Document], None]


class Grammar:
    """Compiled rules. `annotate` turns static text into a phrase that carries the entities in it."""

    def __init__(self, source: str, annotate: Callable[[str], Phrase] = Phrase):
        self.annotate = annotate
        self.compile = cache(self._compile)
        self.rules: Mapping[str, tuple[tuple[Step, ...], ...]] = {
            name: tuple(self.compile(line) for line in lines) for name, lines in read_rules(source).items()
        }
        self.outlines: dict[str, list[str]] = {}
        for name in self.rules:
            if "/" in name:
                self.outlines.setdefault(name.split("/")[0], []).append(name)

    def outline(self, kind: str) -> list[str]:
        """Return the rules `kind/...`, the parts of a document of that kind, in the order of the file."""
        return self.outlines.get(kind, [])

    def _compile(self, template: str) -> tuple[Step, ...]:
        return tuple(self._steps(template.replace("\\n", "\n")))

    def _steps(self, template: str) -> Iterator[Step]:
        for text, inner in split_braces(template):
            if text:
                yield write_phrase(self.annotate(text))
            if inner is None:
                continue
            ways = split_bars(inner)
            if len(ways) > 1:
                yield choose(tuple(self._compile(way) for way in ways))
            else:
                yield slot(inner)


def read_rules(source: str) -> dict[str, list[str]]:
    """Return the rules of `phrases/<source>.txt`: name -> alternatives."""
    rules: dict[str, list[str]] = {}
    lines = (
        (resources.files(__package__) / "phrases" / f"{source}.txt").read_text(encoding="utf-8").splitlines()
    )
    for line in lines:
        if line.startswith(":: "):
            current = rules.setdefault(line[3:].strip(), [])
        elif line.strip() and not line.startswith("#"):
            current += alternatives(line.strip())
    return rules


def alternatives(line: str) -> list[str]:
    """Return a line of a rule: one alternative, or each of the words if it is nothing but one choice."""
    pieces = list(split_braces(line))
    text, inner = pieces[0]
    words = split_bars(inner or "")
    return words if len(pieces) == 2 and not text and not pieces[1][0] and len(words) > 1 else [line]


def split_braces(template: str) -> Iterator[tuple[str, str | None]]:
    """Yield (text before a brace, its content), the content None at the end; `{a} ` takes its blank along."""
    start = depth = 0
    text = ""
    for place, character in enumerate(template):
        if character == "{":
            if depth == 0:
                text, start = template[start:place], place + 1
            depth += 1
        elif character == "}":
            depth -= 1
            assert depth >= 0, f"a brace too many in {template!r}"
            if depth == 0:
                inner = template[start:place]
                yield text, inner
                start = place + (2 if inner in ("a", "A") else 1)
    assert depth == 0, f"an open brace in {template!r}"
    yield template[start:], None


def split_bars(inner: str) -> list[str]:
    """Split at the bars that lie outside of nested braces."""
    pieces, depth = [""], 0
    for character in inner:
        depth += (character == "{") - (character == "}")
        if character == "|" and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def write_phrase(phrase: Phrase) -> Step:
    """Return a step that writes fixed text."""
    text, spans = phrase
    return lambda document: document.write(text, spans)


def choose(ways: tuple[tuple[Step, ...], ...]) -> Step:
    """Return a step that takes one of several ways."""
    count = len(ways)

    def step(document: Document) -> None:
        for inner in ways[int(document.choices.random() * count)]:
            inner(document)

    return step


def slot(inner: str) -> Step:
    """Return a step that fills a slot."""
    number = NUMBER.fullmatch(inner)
    if number:
        return random_number(float(number[1]), float(number[3]), len(number[2] or ""))
    if inner in ("a", "A"):
        return begin_article(inner)
    match = SLOT.fullmatch(inner)
    assert match, f"not a slot: {inner!r}"
    path, capital = tuple(match["path"].lower().split(".")), match["path"] != match["path"].lower()
    if match["words"]:
        one, many = match["words"].split("/")
        return lambda document: document.write(many if is_plural(document.value(path)) else one)
    if match["count"]:
        return some_of(path, match["count"], match["joiner"] or "and", capital)
    return fact_or_rule(path, capital)


def fact_or_rule(path: tuple[str, ...], capital: bool) -> Step:
    """Return a step that writes the fact at `path`, or an alternative of the rule of that name."""

    def step(document: Document) -> None:
        value = document.value(path)
        document.capital = document.capital or capital
        if value is None:
            document.rule(path[0])
        else:
            document.put(value)

    return step


def some_of(path: tuple[str, ...], count: str, joiner: str, capital: bool) -> Step:
    """Return a step that writes some items of the list at `path`."""

    def step(document: Document) -> None:
        values = document.value(path)
        document.capital = document.capital or capital
        chosen = values if count == "all" else document.choices.sample(values, int(count))
        document.join(chosen, joiner)

    return step


def random_number(low: float, high: float, decimals: int) -> Step:
    """Return a step that writes a number between the bounds; five digits and more get commas."""
    scale = 10**decimals

    def step(document: Document) -> None:
        value = document.choices.between(round(low * scale), round(high * scale)) / scale
        document.write(f"{value:,.{decimals}f}" if value >= 10_000 else f"{value:.{decimals}f}")

    return step


def begin_article(inner: str) -> Step:
    """Return a step that leaves the article to the next text."""

    def step(document: Document) -> None:
        document.article = True
        document.capital = document.capital or inner == "A"

    return step

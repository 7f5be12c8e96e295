"""General prose, as a base model was trained on: animals, places, lives, crafts, sport, stories, letters.

The sentences are in `phrases/general.txt`, the facts in tables. A document has one kind. It takes facts of
that kind and writes the opening and some of its other parts. No word of medicine occurs.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

from sample_corpus.choices import Choices
from sample_corpus.english import Phrase
from sample_corpus.grammar import Document, Grammar
from sample_corpus.tables import annotator, items, read_table

TITLES = {
    "animal": "{Animal.name}",
    "town": "{town}",
    "country": "{country.name}",
    "life": "{person}",
    "realm": "{town} in the years {year} to {year2}",
    "craft": "{Craft.name}",
    "recipe": "{Dish.name}",
    "match": "{town} {score_high}–{score_low} {town2}",
    "sport": "{Sport.name}",
    "weather": "{Weekday}, {town}",
    "story": "{The {object}|{A} {season} in {town}|What {first} found}",
    "music": "{Instrument.name}",
    "building": "The {building} of {town}",
    "letter": "",
    "garden": "{A garden in {season}|Notes for gardeners|The {month} garden}",
    "book": "{title}",
}
KINDS = tuple(TITLES)
CLOSING = ("ending", "closing")


@cache
def grammar() -> Grammar:
    """Return the rules of general prose; names of countries and cities are places."""
    places = {
        row[column]: "Place" for row in read_table("countries") for column in ("name", "capital", "second")
    }
    return Grammar("general", annotator(places))


@cache
def rows(table: str) -> list[SimpleNamespace]:
    """Return a table's entries with its cells as phrases, those with several items as lists."""

    def value(cell: str) -> Any:
        parts = [grammar().annotate(part) for part in items(cell)]
        return parts if ";" in cell else grammar().annotate(cell)

    return [SimpleNamespace(**{key: value(cell) for key, cell in row.items()}) for row in read_table(table)]


def write(choices: Choices) -> Document:
    """Return one document of 30 to about 700 words."""
    document = Document(grammar(), choices)
    kind = choices.pick(KINDS)
    subjects = choices.between(2, 4) if kind not in ("letter", "story") and choices.chance(0.15) else 1
    for place in range(subjects):
        document.facts = draw_facts(document, kind)
        if place:
            document.write("\n\n")
        if TITLES[kind] and (subjects > 1 or choices.chance(0.4)):
            document.say(TITLES[kind])
            document.write("\n\n")
        write_parts(document, kind, choices.random())
    return document


def write_parts(document: Document, kind: str, fullness: float) -> None:
    """Write the opening, a share of the other parts in their order, and a closing if the kind has one."""
    opening, *body = grammar().outline(kind)
    closing = [body.pop()] if body[-1].endswith(CLOSING) and kind in ("letter", "story", "life") else []
    count = 1 + int(fullness**0.5 * len(body))
    chosen = sorted(document.choices.sample(range(len(body)), count))
    document.rule(opening)
    since_break = 1
    for name in [*(body[place] for place in chosen), *closing]:
        new_paragraph = name == "letter/closing" or (since_break > 1 and document.choices.chance(0.4))
        document.write("\n\n" if name == "letter/closing" else "\n" if new_paragraph else " ")
        since_break = 1 if new_paragraph else since_break + 1
        document.rule(name)


def draw_facts(document: Document, kind: str) -> dict[str, Any]:
    """Return the people, places, years and things of one subject."""
    choices = document.choices
    country, other = choices.sample(rows("countries"), 2)
    dish = choices.pick(rows("dishes"))
    instrument, instrument2 = choices.sample(rows("instruments"), 2)
    towns = [tagged(document, "town_name", "Place") for _ in range(3)]
    his, partner = ("man", "woman") if choices.chance(0.5) else ("woman", "man")
    first, spouse, *others = (
        tagged(document, sex, "Person") for sex in (his, partner, "woman", "man", "woman", "man")
    )
    second, third, fourth, fifth = choices.sample(others, 4)
    surnames = [tagged(document, "surname", "Person") for _ in range(4)]
    facts = {
        "animal": choices.pick(rows("animals")), "country": country, "other": other, "dish": dish,
        "craft": choices.pick(rows("crafts")), "sport": choices.pick(rows("sports")),
        "instrument": instrument, "instrument2": instrument2,
        "country_adjective": next(row.adjective for row in rows("countries") if row.name == dish.country),
        "town": towns[0], "town2": towns[1], "town3": towns[2],
        "first": first, "second": second, "third": third,
        "person": full_name(first, surnames[0]), "person2": full_name(fourth, surnames[1]),
        "surname": surnames[0],
        "teacher": full_name(fifth, surnames[2]), "spouse": full_name(spouse, surnames[3]), "ruler": first,
    }  # fmt: skip
    for name, rule in (
        ("river", "river_name"), ("building", "building_kind"),
        ("profession", "profession"), ("object", "object"), ("title", "title"),
    ):  # fmt: skip
        facts[name] = document.make(rule)
    pronouns = ("he", "him", "his") if his == "man" else ("she", "her", "her")
    facts |= dict(zip(("he", "him", "his"), pronouns, strict=True))
    return facts | draw_years(choices, kind)


def draw_years(choices: Choices, kind: str) -> dict[str, int]:
    """Return the years of a life and of an event, and the score of a match."""
    birth = choices.between(1690, 1915)
    death = birth + choices.between(48, 91)
    middle = birth + choices.between(24, 38)
    year = choices.between(1830, 1930) if kind == "building" else choices.between(1190, 1760)
    low = choices.between(0, 24)
    return {
        "birth": birth, "middle": middle, "late": choices.between(middle + 5, death - 1), "death": death,
        "age": death - birth, "year": year, "year2": year + choices.between(1, 19),
        "score_low": low, "score_high": low + choices.between(1, 9),
    }  # fmt: skip


def tagged(document: Document, rule: str, kind: str) -> Phrase:
    """Return a name drawn from a rule, marked as an entity."""
    text = document.make(rule).text
    return Phrase(text, ((0, len(text), kind),))


def full_name(first: Phrase, last: Phrase) -> Phrase:
    """Return first and last name as one person."""
    text = f"{first.text} {last.text}"
    return Phrase(text, ((0, len(text), "Person"),))

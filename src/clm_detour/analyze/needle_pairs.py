"""Pairs of a made-up fact and a statement about it, for the trained needle probe.

The fact ("Vial 3141 contains 20 mg of codeine.") is a template with its slots filled. The statement is the
same sentence, or, in half of the pairs, one in which the value of one slot is another. No sentence occurs in
two pairs, so no needle is in two splits. A statement alone does not tell whether it holds, because the values
of all slots are drawn uniformly.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
import yaml

from clm_detour.utils.errors import UserError

TEMPLATES = resources.files("clm_detour.analyze") / "needle_templates"
POSITIONS = (0.0, 0.5, 1.0)
TRAIN, VALIDATION = 0.7, 0.15  # shares of each length and position; the rest is the test split
FEWEST = 20  # pairs of a length and position
DRAWS = 1000  # attempts to find a sentence that is new


@dataclass(frozen=True)
class Pair:
    """A needle and a statement about it.

    Args:
        number: Number of the pair, which seeds its text.
        length: Tokens of the text, needle and statement.
        position: Place of the needle: 0 at the start, 1 just before the statement.
        holds: Whether the statement is the needle.
    """

    number: int
    length: int
    position: float
    needle: str
    statement: str
    holds: bool
    split: str


@dataclass(frozen=True)
class Templates:
    """Sentences with slots, and the values of each slot."""

    sentences: Sequence[str]
    values: Mapping[str, Sequence[str]]

    def slots(self, sentence: str) -> list[str]:
        """Return the names of a sentence's slots, in order."""
        return [name for _, name, _, _ in string.Formatter().parse(sentence) if name]


def languages() -> list[str]:
    """Return the languages for which there are templates."""
    names = (path.name for path in TEMPLATES.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def read_templates(language: str) -> Templates:
    """Return the templates of a language.

    Raises:
        UserError: If there are none.
    """
    if language not in languages():
        raise UserError(f"--language {language}: there are needles in {', '.join(languages())} only.")
    found = yaml.safe_load((TEMPLATES / f"{language}.yaml").read_text(encoding="utf-8"))
    values = {
        slot: [str(one) for one in (range(given["from"], given["to"] + 1) if "from" in given else given)]
        for slot, given in found["slots"].items()
    }
    return Templates(found["templates"], values)


def make_pairs(templates: Templates, lengths: Sequence[int], pairs: int, seed: int) -> list[Pair]:
    """Return the pairs of all splits; each length and position has the same number in each split.

    Args:
        pairs: Number of all pairs; it is rounded down to a multiple of the lengths and positions.

    Raises:
        UserError: If there are too few pairs for three splits.
    """
    cells = [(length, position) for length in lengths for position in POSITIONS]
    each = pairs // len(cells)
    if each < FEWEST:
        raise UserError(
            f"--pairs {pairs}: {len(lengths)} lengths and {len(POSITIONS)} positions take at least "
            f"{FEWEST * len(cells)}; give more, or fewer --lengths."
        )
    splits = split_sizes(each)
    rng, used = np.random.default_rng(seed), set[str]()
    made: list[Pair] = []
    for length, position in cells:
        for place, split in enumerate(name for name, size in splits.items() for _ in range(size)):
            number, holds = len(made), place % 2 == 0
            needle, statement = draw(templates, number, holds, rng, used)
            made.append(Pair(number, length, position, needle, statement, holds, split))
    return made


def split_sizes(pairs: int) -> dict[str, int]:
    """Return the number of pairs of each split."""
    train, validation = round(TRAIN * pairs), round(VALIDATION * pairs)
    return {"train": train, "validation": validation, "test": pairs - train - validation}


def draw(
    templates: Templates, number: int, holds: bool, rng: np.random.Generator, used: set[str]
) -> tuple[str, str]:
    """Return a needle and a statement that no other pair has, and enter them into `used`."""
    sentence = templates.sentences[number % len(templates.sentences)]
    slots = templates.slots(sentence)
    for _ in range(DRAWS):
        filled = {slot: str(rng.choice(templates.values[slot])) for slot in slots}
        needle = statement = sentence.format(**filled)
        if not holds:
            slot = slots[int(rng.integers(len(slots)))]
            others = [value for value in templates.values[slot] if value != filled[slot]]
            statement = sentence.format(**{**filled, slot: str(rng.choice(others))})
        if used.isdisjoint((needle, statement)):
            used |= {needle, statement}
            return needle, statement
    raise UserError("There are too few values for so many different needles; give fewer --pairs.")

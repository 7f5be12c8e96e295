"""Reading the tables of facts in `tables/*.tsv`.

A table has a header line and one entry a line. A cell with semicolons is a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib import resources

from sample_corpus.english import Phrase


def read_table(name: str) -> list[dict[str, str]]:
    """Return the entries of `tables/<name>.tsv` as they stand, each a mapping from column to cell."""
    text = (resources.files(__package__) / "tables" / f"{name}.tsv").read_text(encoding="utf-8")
    header, *lines = (line.split("\t") for line in text.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def items(cell: str) -> list[str]:
    """Return the items of a cell that holds a list."""
    return cell.split(";") if cell else []


def annotator(names: dict[str, str]) -> Callable[[str], Phrase]:
    """Return a function that finds the given names (name -> entity type) in a text, the longest first.

    A name counts as found where whole words match; one that begins in lower case may have a capital there.
    """
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(either_case, by_length(names)))})(?!\w)")
    known = {**{name[:1].upper() + name[1:]: kind for name, kind in names.items()}, **names}

    def annotate(text: str) -> Phrase:
        return Phrase(text, tuple((m.start(), m.end(), known[m.group()]) for m in pattern.finditer(text)))

    return annotate


def by_length(names: Iterable[str]) -> list[str]:
    """Return names with the longest first, in a fixed order."""
    return sorted(names, key=lambda name: (-len(name), name))


def either_case(name: str) -> str:
    """Return a pattern for a name whose first letter, if it is a small one, may be a capital."""
    first, rest = name[:1], re.escape(name[1:])
    return f"[{first}{first.upper()}]{rest}" if first.islower() else re.escape(first) + rest

"""ChemProt as BioCreative VI gives it: abstracts, entities and relations in three TSVs. A pair of a chemical and a gene in one sentence is an example.

Its two are written `BC6ENTC` and `BC6ENTG`, all other entities of the sentence `BC6OTHER`, as in BLURB's copy. Sentences end at a full stop, question or exclamation mark before a
capital or a digit; BLURB used another tool, so numbers of pairs differ from the published ones, and the command `clm-detour tasks` says by how many.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from clm_detour.evaluate.formats.files import lines
from clm_detour.evaluate.formats.form import Example, Files, Form, skipped
from clm_detour.utils.errors import UserError

SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z0-9])")


@dataclass(frozen=True)
class Mention:
    """An entity of an abstract; characters [start, end) of title, a space, and abstract."""

    id: str
    chemical: bool
    start: int
    end: int


@dataclass(frozen=True)
class BioCreative(Form):
    """The three files of a split, found by the one with abstracts. Of two relations of a pair the last counts; the others, and those whose two are in no sentence together, are counted."""

    files: Files
    negative: str = "False"

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """A pair each."""
        mentions: dict[str, list[Mention]] = defaultdict(list)
        for place, (pmid, id, kind, first, last, _) in rows(beside(file, "entities"), 6):
            if not (first.isdigit() and last.isdigit()):
                raise UserError(f"{place} has no offsets in its fourth and fifth cells.")
            mentions[pmid].append(Mention(id, kind == "CHEMICAL", int(first), int(last)))
        related: dict[tuple[str, ...], str] = {}
        relations = 0
        for _, (pmid, label, one, other) in rows(beside(file, "gold_standard"), 4):
            related[pmid, one.removeprefix("Arg1:"), other.removeprefix("Arg2:")] = label
            relations += 1
        twice = relations - len(related)
        for place, (pmid, title, abstract) in rows(file, 3):
            text = f"{title} {abstract}"
            for chemical, gene, start, end in pairs(text, mentions[pmid]):
                label = related.pop((pmid, chemical.id, gene.id), self.negative)
                inside = [one for one in mentions[pmid] if start <= one.start and one.end <= end]
                sentence = masked(text, start, end, inside, chemical, gene)
                yield Example(f"{pmid}#{chemical.id}.{gene.id}", sentence, place, labels=(label,))
        across = ["relations across sentences"] * len(related)
        yield from skipped(str(file), ["relations beside another of the same pair"] * twice + across)


def rows(file: Path, cells: int) -> Iterator[tuple[str, list[str]]]:
    """Yield place and cells of each line that is not blank, without the blanks at the end of the line."""
    for place, line in lines(file):
        if not line.strip():
            continue
        found = line.rstrip(" ").split("\t")
        if len(found) != cells:
            raise UserError(f"{place} has {len(found)} cells, not {cells}.")
        yield place, found


def beside(file: Path, what: str) -> Path:
    """The file of entities or relations of the same split."""
    stem = file.stem.partition("abstracts")[0]
    found = sorted(file.parent.glob(f"{stem}{what}*.tsv"))
    if not found:
        raise UserError(f"{file} has no {stem}{what}.tsv beside it; get the data set again.")
    return found[0]


def pairs(text: str, mentions: Sequence[Mention]) -> Iterator[tuple[Mention, Mention, int, int]]:
    """Each chemical with each gene of its sentence, and the sentence's characters; not two that overlap."""
    bounds = [0, *(match.end() for match in SENTENCE.finditer(text)), len(text)]
    for start, end in pairwise(bounds):
        inside = [one for one in mentions if start <= one.start and one.end <= end]
        for chemical in (one for one in inside if one.chemical):
            for gene in (one for one in inside if not one.chemical):
                if chemical.end <= gene.start or gene.end <= chemical.start:
                    yield chemical, gene, start, end


def masked(
    text: str, start: int, end: int, inside: Sequence[Mention], chemical: Mention, gene: Mention
) -> str:
    """A sentence with its entities masked; of those that overlap the pair's own, then the longest, count."""
    names = {chemical: "BC6ENTC", gene: "BC6ENTG"}
    chosen: list[Mention] = []
    for one in [chemical, gene, *sorted(inside, key=lambda one: one.start - one.end)]:
        if all(one.end <= other.start or other.end <= one.start for other in chosen):
            chosen.append(one)
    sentence, position = "", start
    for one in sorted(chosen, key=lambda one: one.start):
        sentence += text[position : one.start] + names.get(one, "BC6OTHER")
        position = one.end
    return (sentence + text[position:end]).strip()

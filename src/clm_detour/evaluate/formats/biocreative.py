"""ChemProt as BioCreative VI distributes it: abstracts, entities and relations in three TSV files.

Each pair of a chemical and a gene in one sentence is an example. The two are written `BC6ENTC` and `BC6ENTG`,
and all other entities of the sentence `BC6OTHER`, as in BLURB's copy. A sentence ends at a full stop,
question mark or exclamation mark before a capital letter or a digit. BLURB used another tool, so the numbers
of pairs differ from the published ones; the command `clm-detour tasks` prints both.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from clm_detour.evaluate.formats.format import Example, Files, Format, Pattern, count_skipped, read_lines
from clm_detour.utils.errors import UserError

SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z0-9])")
ABSTRACTS: Mapping[str, Pattern] = {
    "train": "**/chemprot_training_abstracts.tsv",
    "validation": "**/chemprot_development_abstracts.tsv",
    "test": "**/chemprot_test_abstracts*.tsv",
}


@dataclass(frozen=True)
class Mention:
    """An entity of an abstract, at characters [start, end) of the title, a space and the abstract."""

    id: str
    chemical: bool
    start: int
    end: int


@dataclass(frozen=True)
class BioCreative(Format):
    """The three files of a split.

    If a pair has two relations, the last one is used. The other ones, and relations whose two entities are
    never in one sentence, are counted as left out.

    Args:
        files: Where the files with the abstracts are; the other two files are beside them.
        unrelated: Label of a pair without a relation.
    """

    files: Files = field(default_factory=lambda: ABSTRACTS)
    unrelated: str = "False"

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """Yield an example for each pair."""
        mentions: dict[str, list[Mention]] = defaultdict(list)
        for place, (pmid, id, kind, first, last, _) in read_rows(file_beside(file, "entities"), 6):
            if not (first.isdigit() and last.isdigit()):
                raise UserError(f"{place} has no offsets in its fourth and fifth cells.")
            mentions[pmid].append(Mention(id, kind == "CHEMICAL", int(first), int(last)))
        related: dict[tuple[str, ...], str] = {}
        relations = 0
        for _, (pmid, label, one, other) in read_rows(file_beside(file, "gold_standard"), 4):
            related[pmid, one.removeprefix("Arg1:"), other.removeprefix("Arg2:")] = label
            relations += 1
        twice = relations - len(related)
        for place, (pmid, title, abstract) in read_rows(file, 3):
            text = f"{title} {abstract}"
            for chemical, gene, start, end in pairs(text, mentions[pmid]):
                label = related.pop((pmid, chemical.id, gene.id), self.unrelated)
                inside = [one for one in mentions[pmid] if start <= one.start and one.end <= end]
                sentence = masked(text, start, end, inside, chemical, gene)
                yield Example(f"{pmid}#{chemical.id}.{gene.id}", sentence, place, labels=(label,))
        across = ["relations across sentences"] * len(related)
        yield from count_skipped(str(file), ["relations beside another of the same pair"] * twice + across)


def read_rows(file: Path, cells: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each line that is not blank, without spaces at the end of the line."""
    for place, line in read_lines(file):
        if not line.strip():
            continue
        found = line.rstrip(" ").split("\t")
        if len(found) != cells:
            raise UserError(f"{place} has {len(found)} cells, not {cells}.")
        yield place, found


def file_beside(file: Path, what: str) -> Path:
    """Return the file of entities or relations that belongs to a file of abstracts."""
    stem = file.stem.partition("abstracts")[0]
    found = sorted(file.parent.glob(f"{stem}{what}*.tsv"))
    if not found:
        raise UserError(f"{file} has no {stem}{what}.tsv beside it; get the data set again.")
    return found[0]


def pairs(text: str, mentions: Sequence[Mention]) -> Iterator[tuple[Mention, Mention, int, int]]:
    """Yield each pair of a chemical and a gene in one sentence, with the span of the sentence."""
    bounds = [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text)]
    for start, end in pairwise(bounds):
        inside = [one for one in mentions if start <= one.start and one.end <= end]
        for chemical in (one for one in inside if one.chemical):
            for gene in (one for one in inside if not one.chemical):
                if chemical.end <= gene.start or gene.end <= chemical.start:
                    yield chemical, gene, start, end


def masked(
    text: str, start: int, end: int, inside: Sequence[Mention], chemical: Mention, gene: Mention
) -> str:
    """Return a sentence with its entities masked.

    If entities overlap, those of the pair are masked, or else the longest one.
    """
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

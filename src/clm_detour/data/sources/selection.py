"""From a record to its document, or to the reason why it is left out: all decisions about single records."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from clm_detour.config.expressions.conditions import Condition
from clm_detour.config.expressions.fields import Field, FieldProblem
from clm_detour.config.expressions.templates import Template, TextField
from clm_detour.config.schema import Source
from clm_detour.data.decontaminate import SharedRuns
from clm_detour.data.sources.evaluation import evaluation_texts
from clm_detour.data.sources.records import BadRecord, Record

WORD = re.compile(r"\S+")
# Marks that de-identification leaves in notes: "[** ... **]" in MIMIC-III, "___" in MIMIC-IV.
MARK = "___"
CANDIDATES = re.compile(r"(?P<mark>\[\*\*[^\[\]]{0,200}\*\*\]|_{3,})(?P<blank> ?)")
SURROGATES_OF_BYTES = range(0xDC80, 0xDD00)


class Document(NamedTuple):
    """A text, and how many times it is to be seen."""

    text: str
    copies: int


class LeftOut(NamedTuple):
    """A record that a setting of the source excludes."""

    reason: str


@dataclass(frozen=True)
class Selection:
    """The settings of a source that concern single records, parsed.

    Args:
        repeat: Conditions with their numbers of copies; the first that holds counts.
        evaluation: Runs of words that must not be in a text.
    """

    source: Source
    text: TextField | Template
    where: Condition | None
    repeat: tuple[tuple[Condition, float], ...]
    evaluation: SharedRuns | None

    @classmethod
    def of(cls, source: Source) -> Selection:
        """Parse the settings, and read the evaluation's texts if there are any.

        Raises:
            UserError: If a template or a condition cannot be parsed, or evaluation texts cannot be read.
        """
        shared = source.decontaminate and SharedRuns(evaluation_texts(source.decontaminate), source.ngram)
        return cls(
            source=source,
            text=TextField(Field.parse(source.text))
            if source.template is None
            else Template.parse(source.template),
            where=None if source.where is None else Condition.parse(source.where),
            repeat=tuple((Condition.parse(text), copies) for text, copies in source.repeat.items()),
            evaluation=shared or None,
        )

    @property
    def fields(self) -> list[Field]:
        """Fields of a record that the settings need."""
        conditions = [condition for condition, _ in self.repeat]
        conditions += [self.where] if self.where else []
        return [*self.text.fields, *(field for condition in conditions for field in condition.fields)]

    def document(self, record: Record) -> Document | LeftOut | BadRecord:
        """Return the document of a record, or why there is none."""
        try:
            if self.where is not None and not self.where(record.fields):
                return LeftOut("where")
            text = self.text.render(record.fields)
            copies = next((times for condition, times in self.repeat if condition(record.fields)), 1.0)
        except FieldProblem as problem:
            return BadRecord(problem.reason, f"{record.place}{problem}")
        wrong = find_problem(text)
        if wrong is not None:
            name = f"'{self.source.text}'" if self.source.template is None else "the template's text"
            return BadRecord(wrong, f"{record.place}: {name} {PROBLEMS[wrong]}")
        if self.source.deidentified is not None:
            text = replace_marks(text, self.source.deidentified)
        reason = self.reason_to_leave_out(text)
        if reason is not None:
            return LeftOut(reason)
        whole = whole_copies(text, copies)
        return Document(text, whole) if whole else LeftOut("not drawn")

    def reason_to_leave_out(self, text: str) -> str | None:
        """Return why a text is left out, or None."""
        source = self.source
        if not text or text.isspace():
            return "empty"
        if len(text) < (source.min_characters or 0) or has_fewer_words(text, source.min_words or 0):
            return "too short"
        longest_words = source.max_words is not None and not has_fewer_words(text, source.max_words + 1)
        if longest_words or (source.max_characters is not None and len(text) > source.max_characters):
            return "too long"
        if self.evaluation is not None and self.evaluation.in_text(text):
            return "contaminated"
        return None


PROBLEMS = {
    "NUL character": "has a NUL character: is this a text file in UTF-8?",
    "not UTF-8": "is not valid UTF-8",
    "not Unicode": "has half a surrogate pair",
}


def find_problem(text: str) -> str | None:
    """Return one of PROBLEMS, or None."""
    if "\0" in text:
        return "NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return "not UTF-8" if ord(text[error.start]) in SURROGATES_OF_BYTES else "not Unicode"
    return None


def has_fewer_words(text: str, count: int) -> bool:
    """Return whether `text` has fewer than `count` words, without making a list of them."""
    if len(text) < 2 * count - 1:  # the shortest text: words of one character
        return True
    return count > 0 and next(islice(WORD.finditer(text), count - 1, None), None) is None


def whole_copies(text: str, copies: float) -> int:
    """Return `copies` rounded up or down, by a hash of the text, so that it is right on average."""
    if copies == int(copies):
        return int(copies)
    drawn = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=b"copies").digest(), "little")
    return math.floor(copies) + (drawn < (copies % 1) * 2**64)


def is_held_out(text: str, held_out: float) -> bool:
    """Return whether a document belongs to the held-out split, which depends on its text alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < held_out * 2**64


def replace_marks(text: str, word: str) -> str:
    """Return `text` with `word` in place of each mark of de-identification.

    Without a word, a mark is removed together with one of the blanks around it.
    """

    def instead(match: re.Match[str]) -> str:
        if match["mark"].startswith("_") and match["mark"] != MARK:  # a drawn line
            return match[0]
        follows_blank = match.start() == 0 or text[match.start() - 1].isspace()
        return word if not word and follows_blank else word + match["blank"]

    return CANDIDATES.sub(instead, text)

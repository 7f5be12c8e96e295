"""Marks that de-identification left in clinical notes: `[** ... **]` in MIMIC-III, `___` in MIMIC-IV."""

from __future__ import annotations

import re

MARK = "___"
CANDIDATES = re.compile(r"(?P<mark>\[\*\*[^\[\]]{0,200}\*\*\]|_{3,})(?P<blank> ?)")


def replace_marks(text: str, word: str) -> str:
    """`text` with `word` for each mark; without a word the mark goes with one of the blanks around it."""

    def instead(match: re.Match[str]) -> str:
        if match["mark"].startswith("_") and match["mark"] != MARK:  # a line drawn in the note
            return match[0]
        follows_blank = match.start() == 0 or text[match.start() - 1].isspace()
        return word if not word and follows_blank else word + match["blank"]

    return CANDIDATES.sub(instead, text)

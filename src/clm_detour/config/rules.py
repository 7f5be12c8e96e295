"""How a rule is checked: it holds, or one sentence says what is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from clm_detour.errors import UserError


def require(holds: bool, sentence: str) -> None:
    """A rule."""
    if not holds:
        raise UserError(sentence)


def one_of(value: str, known: Iterable[str], where: str) -> None:
    """A name must be one of those known."""
    known = list(known)
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = (
            f"did you mean {near[0]}?"
            if near
            else f"it can be {', '.join(known) or 'nothing: none is defined'}."
        )
        raise UserError(f"{where}: {value!r} is not known; {hint}")

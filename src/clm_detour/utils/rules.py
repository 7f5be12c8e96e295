"""How a rule is checked: it holds, or one sentence says what is wrong."""

from __future__ import annotations

from collections.abc import Iterable

from clm_detour.utils.errors import UserError, nearest


def require(holds: bool, sentence: str) -> None:
    """A rule."""
    if not holds:
        raise UserError(sentence)


def one_of(value: str, known: Iterable[str], where: str) -> None:
    """A name must be one of those known."""
    known = list(known)
    if value not in known:
        near = nearest(value, known, likeness=0.6)
        all_of_them = ", ".join(known) or "nothing: none is defined"
        remedy = f"did you mean {near}?" if near else f"it can be {all_of_them}."
        raise UserError(f"{where}: {value!r} is not known; {remedy}")


def unknown_key(key: str, where: str, known: Iterable[str]) -> str:
    """The sentence for a key that is not known below `where`."""
    known = list(known)
    near = nearest(key, known)
    remedy = f"did you mean {where}{near}?" if near else f"known here: {', '.join(known)}."
    return f"Unknown key {where}{key}; {remedy}"

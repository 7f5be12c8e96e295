"""How a rule is checked: it holds, or one sentence says what is wrong."""

from __future__ import annotations

from collections.abc import Iterable

from clm_detour.utils.errors import UserError, nearest


def require(holds: bool, sentence: str) -> None:
    """A rule."""
    if not holds:
        raise UserError(sentence)


def one_of(value: str, known: Iterable[str], where: str) -> None:
    """Raise a UserError unless `value` is one of the names in `known`."""
    known = list(known)
    if value not in known:
        raise UserError(not_known(value, known, where))


def not_known(value: str, known: list[str], where: str) -> str:
    """Return the sentence for a value that is none of the names in `known`."""
    near = nearest(value, known, likeness=0.6)
    remedy = (
        f"did you mean {near}?" if near else f"it can be {', '.join(known) or 'nothing: none is defined'}."
    )
    return f"{where}: {value!r} is not known; {remedy}"


def unknown_key(key: str, where: str, known: Iterable[str]) -> str:
    """The sentence for a key that is not known below `where`."""
    known = list(known)
    near = nearest(key, known)
    remedy = f"did you mean {where}{near}?" if near else f"known here: {', '.join(known)}."
    return f"Unknown key {where}{key}; {remedy}"

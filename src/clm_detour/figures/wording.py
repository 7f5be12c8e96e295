"""Numbers in words: with thousands separators, percent, signs and durations. Spaces in them do not break."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clm_detour.utils.progress import human

NARROW = "\u202f"  # a thin space that does not break
MINUS = "\u2212"
ABSENT = "\u2013"


def count(number: int) -> str:
    """Return a count with thousands separators: 12345 -> '12,345'."""
    return f"{number:,}"


def counted(number: int, thing: str) -> str:
    """Return a count of things: 1 -> '1 task', 2 -> '2 tasks'."""
    return f"{count(number)} {thing}{'' if number == 1 else 's'}"


def these(number: int, thing: str) -> str:
    """Return a count of known things: 1 -> 'this 1 task', 2 -> 'these 2 tasks'."""
    return f"{'this' if number == 1 else 'these'} {counted(number, thing)}"


def tokens(number: int) -> str:
    """Return a number of tokens: 600064 -> '600k tokens'."""
    return f"{human(number)} tokens"


def loss(value: float) -> str:
    """Return a loss with three decimals, or 'not finite'."""
    return f"{value:.3f}" if math.isfinite(value) else "not finite"


def perplexity(value: float) -> str:
    """Return the perplexity of a loss, which is its exponential."""
    if not value < 50:
        return ABSENT
    return f"{math.exp(value):,.1f}" if value < 12 else human(math.exp(value))


def percent(share: float, decimals: int = 1) -> str:
    """Return a share in percent: 0.4132 -> '41.3 %'."""
    return f"{100 * share:.{decimals}f}{NARROW}%"


def signed(value: float, decimals: int = 3) -> str:
    """Return a difference with its sign, without one if it rounds to zero: +0.012, −0.012 or 0.000."""
    if not math.isfinite(value):
        return ABSENT
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def points(share: float) -> str:
    """Return a difference of two shares in percentage points: 0.004 -> '+0.4'."""
    return signed(100 * share, 1)


def duration(seconds: float) -> str:
    """Return a duration: 12.3 -> '12 s', 754 -> '12 min 34 s', 4000 -> '1 h 07 min'."""
    if seconds < 10:
        return f"{seconds:.1f}{NARROW}s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours:,}{NARROW}h {minutes:02d}{NARROW}min"
    return f"{minutes}{NARROW}min {rest:02d}{NARROW}s" if minutes else f"{rest}{NARROW}s"


def listing(items: Sequence[str]) -> str:
    """Return items as a list in words: 'a, b and c'."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return for each path as many of its last parts as distinguish all paths."""
    parts = {path: path.rstrip("/").split("/") for path in paths}
    longest = max(map(len, parts.values()))
    for count in range(1, longest + 1):
        names = {path: "/".join(words[-count:]) for path, words in parts.items()}
        if len(set(names.values())) == len(parts):
            return names
    return {path: path for path in parts}

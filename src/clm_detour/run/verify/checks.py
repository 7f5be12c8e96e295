"""Make the lines of the table: a figure is compared with its limit in one place."""

from __future__ import annotations

from collections.abc import Iterator

from clm_detour.records.verify import Check
from clm_detour.utils.errors import on_one_line

TITLES = {
    "kernels": "1. Attention back ends against fp64",
    "network": "2. A network of two layers",
    "ranks": "3. Several processes",
    "recovery": "4. Recovery",
    "memory": "5. Memory",
    "figures": "6. Figures of this machine",
}
WIDTH = 80


class Group:
    """The checks of one group.

    Args:
        name: Key of `TITLES`.
    """

    def __init__(self, name: str):
        self.name = name

    def at_most(self, name: str, value: float, limit: float, unit: str = "", where: str = "") -> Check:
        """Return a check that a value is not above a limit. NaN fails.

        Args:
            where: The place of the value, which is named if the check fails.
        """
        return self._compared(name, value <= limit, value, f"<= {_number(limit)}", unit, where)

    def at_least(self, name: str, value: float, limit: float, unit: str = "", where: str = "") -> Check:
        """Return a check that a value is not below a limit. NaN fails."""
        return self._compared(name, value >= limit, value, f">= {_number(limit)}", unit, where)

    def equal(self, name: str, found: object, expected: object, why: str = "") -> Check:
        """Return a check that two things are equal; they are shown as text.

        Args:
            why: What a difference means, for the line of a failed check.
        """
        same = found == expected
        value = float(found) if isinstance(found, int | float) else None
        status, reason = ("ok", "") if same else ("FAILED", why)
        return Check(self.name, name, status, str(found), f"= {expected}", reason, value)  # type: ignore[arg-type]

    def figure(self, name: str, text: str, value: float | None = None) -> Check:
        """Return a figure that has no limit."""
        return Check(self.name, name, "ok", text, value=value)

    def left_out(self, name: str, why: str) -> Check:
        """Return a check that was not made, with the reason."""
        return Check(self.name, name, "left out", why=why)

    def failed(self, name: str, why: str | BaseException) -> Check:
        """Return a check that ended with an error."""
        reason = why if isinstance(why, str) else f"{type(why).__name__}: {on_one_line(why)}"
        return Check(self.name, name, "FAILED", why=reason[:400])

    def _compared(self, name: str, good: bool, value: float, limit: str, unit: str, where: str) -> Check:
        after = f" {unit}" if unit else ""
        status, why = ("ok", "") if good else ("FAILED", where)
        figure = _number(value) + after
        return Check(self.name, name, status, figure, limit + after, why, value)  # type: ignore[arg-type]


def _number(value: float) -> str:
    return f"{value:d}" if isinstance(value, int) else f"{value:.2g}"


def lines_of(check: Check) -> Iterator[str]:
    """Yield the lines of a check, at most `WIDTH` wide but for a long reason, which has lines of its own."""
    cells = f"{check.figure:>15} {check.limit:>13}" if check.limit else f"{check.figure:>15}"
    first = f"  {check.name:<38}{cells:<29} {check.status:>9}"
    if check.status != "left out":
        yield first
        if check.why:
            yield from _wrapped(check.why)
        return
    short = f"  {check.name:<38} left out: {check.why}"
    if len(short) <= WIDTH:
        yield short
    else:
        yield f"  {check.name:<38} left out:"
        yield from _wrapped(check.why)


def _wrapped(text: str) -> Iterator[str]:
    line = "     "
    for word in text.split():
        if len(line) + 1 + len(word) > WIDTH and line.strip():
            yield line
            line = "     "
        line += f" {word}"
    yield line

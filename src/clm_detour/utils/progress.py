"""Print messages, and show the progress of work that takes longer than a few seconds.

On a terminal progress is a live bar with rate and time left; in a log file it is a plain line every ten
seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

# No markup: "run [old]" and ":x:" may be parts of a path. A style is an argument of `print`.
console = Console(stderr=True, highlight=False, markup=False, emoji=False)
LOG_SECONDS = 10.0

Advance = Callable[..., None]


def warn(sentence: str) -> None:
    """Print a warning without markup and without line breaks."""
    console.print(sentence, style="yellow", soft_wrap=True)


def human(number: float) -> str:
    """Return a number in short form, like '1.23M' for 1234567."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{suffix}"
    return f"{number:.3g}"


def human_bytes(number: float) -> str:
    """Return a number of bytes in short form, like '1.23GB' for 1234567890."""
    text = human(number)
    return f"{text[:-1]}GB" if text.endswith("B") else f"{text}B"


class RateColumn(ProgressColumn):
    """A column of the bar with units per second."""

    def render(self, task: Task) -> Text:
        """Return the rate in short form."""
        speed = task.finished_speed or task.speed
        return Text(f"{human(speed)} {task.fields['unit']}/s" if speed else "", style="cyan")


@contextmanager
def progress(description: str, total: float | None, unit: str = "it") -> Iterator[Advance]:
    """Show a bar while the block runs; the block calls `advance(amount, note="loss 3.2")`.

    `advance(amount, earlier=True)` counts work of an earlier run, which is left out of the rate.

    Args:
        description: Name of the work.
        total: Amount of work in `unit`s, or None if it is not known.
        unit: Unit of the amounts.
    """
    if console.is_terminal:
        with _bar(description, total, unit) as advance:
            yield advance
    else:
        with _log_lines(description, total, unit) as advance:
            yield advance


@contextmanager
def _bar(description: str, total: float | None, unit: str) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(description, total=total, unit=unit, note="")

        def advance(amount: float = 1, note: str | None = None, earlier: bool = False) -> None:
            if earlier:
                bars.reset(task, completed=int(amount))
                return
            if note is not None:
                bars.update(task, note=note)
            bars.advance(task, amount)

        yield advance


@contextmanager
def _log_lines(description: str, total: float | None, unit: str) -> Iterator[Advance]:
    start = last = time.monotonic()
    done, before, latest = 0.0, 0.0, ""

    def line() -> str:
        elapsed = max(time.monotonic() - start, 1e-9)
        parts = [f"{description}: {human(done)}{f'/{human(total)}' if total else ''} {unit}"]
        parts.append(f"{human((done - before) / elapsed)} {unit}/s")
        if total and before < done < total:
            parts.append(f"{(total - done) * elapsed / (done - before):.0f}s left")
        return ", ".join([*parts, latest] if latest else parts)

    def advance(amount: float = 1, note: str | None = None, earlier: bool = False) -> None:
        nonlocal start, done, before, last, latest
        done, latest = done + amount, latest if note is None else note
        if earlier:
            start, before = time.monotonic(), done
        if time.monotonic() - last >= LOG_SECONDS:
            last = time.monotonic()
            console.print(line(), soft_wrap=True)

    yield advance
    console.print(line(), soft_wrap=True)

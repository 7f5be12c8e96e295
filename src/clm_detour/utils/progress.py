"""Print messages, and show the progress of work that takes longer than a few seconds.

On a terminal progress is a bar with percentage, rate and time left, all within 80 columns; only the note
behind them is cut. In a log file it is a plain line every ten seconds, and less often in long work.
"""

from __future__ import annotations

import functools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

# No markup: "run [old]" and ":x:" may be parts of a path. A style is an argument of `print`.
console = Console(stderr=True, highlight=False, markup=False, emoji=False)
RATE_SECONDS = 30.0  # the time over which a rate is measured
LOG_SECONDS = 10.0  # the shortest time between two lines of a log
MAX_LOG_SECONDS = 300.0
NARROW_BAR, WIDE_BAR = 12, 40  # characters of the bar itself, at 80 columns and on a wide terminal
BESIDE_BAR = 40  # characters of percentage, rate, time left and the start of the note
PLACE = "CLM_DETOUR_STEP"  # environment variable, so processes that a step starts show its number, too

Advance = Callable[..., None]


def say(sentence: str, style: str = "") -> None:
    """Print a sentence without markup: wrapped between words on a terminal, on one line in a log."""
    console.print(sentence, style=style, soft_wrap=not console.is_terminal)


@functools.cache
def say_once(sentence: str) -> None:
    """Print a sentence unless this process has printed it before."""
    say(sentence)


def warn(sentence: str) -> None:
    """Print a warning."""
    say(sentence, style="yellow")


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


def shortened(name: str, width: int) -> str:
    """Return a name in at most `width` characters; its end stays, since names of phases differ there."""
    return name if len(name) <= width else f"…{name[-max(width - 1, 0) :]}"


@contextmanager
def numbered(place: str | None) -> Iterator[None]:
    """Show a number like `9/22` in front of all progress while the block runs; None shows no number."""
    if place is not None:
        os.environ[PLACE] = place
    try:
        yield
    finally:
        os.environ.pop(PLACE, None)


class Work:
    """Progress of one piece of work.

    Attributes:
        total: Amount of work, or None if it is not known.
        done: Amount that is done, that of earlier runs included.
        note: What the work says of itself.
    """

    def __init__(self, total: float | None, unit: str):
        self.total = total
        self.unit = unit
        self.note = ""
        self.restart(0.0)

    def restart(self, done: float) -> None:
        """Count `done` as the work of an earlier run, and measure the rate and the time from now on."""
        self.done = done
        self.start = time.monotonic()
        self.samples = deque([(self.start, done)])

    def add(self, amount: float) -> None:
        """Count an amount, and forget what is too old for the rate; two samples stay in any case."""
        if not amount:
            return  # only the note changed
        now = time.monotonic()
        self.done += amount
        self.samples.append((now, self.done))
        while len(self.samples) > 2 and self.samples[1][0] <= now - RATE_SECONDS:
            self.samples.popleft()

    def finish(self) -> None:
        """Count all work as done, since the total may have been an estimate."""
        self.total = self.done

    @property
    def finished(self) -> bool:
        """True if all work is done."""
        return self.total is not None and self.done >= self.total

    @property
    def rate(self) -> float:
        """Units per second over the last `RATE_SECONDS`, or over the last two calls of `add`."""
        (first, before), (last, done) = self.samples[0], self.samples[-1]
        return (done - before) / (last - first) if last > first else 0.0

    @property
    def rate_text(self) -> str:
        """The rate in short form; empty while nothing was measured."""
        return f"{human(self.rate)} {self.unit}/s" if self.rate else ""

    @property
    def percent(self) -> str:
        """The share that is done, rounded down; empty while the amount of work is not known."""
        if self.finished:
            return "100%"
        return f"{int(100 * self.done / self.total):>3}%" if self.total else ""

    @property
    def time(self) -> str:
        """The time that is left, or the time that was taken if all work is done."""
        if self.finished:
            return clock(time.monotonic() - self.start)
        return clock((self.total - self.done) / self.rate) if self.total and self.rate else ""


def clock(seconds: float) -> str:
    """Return a time like `1:02:03`."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


class WorkColumn(ProgressColumn):
    """A column of the bar with a text of the work, as wide as it needs to be."""

    def __init__(self, text: Callable[[Work], str], style: str):
        super().__init__(Column(no_wrap=True))
        self.text = text
        self.style = style

    def render(self, task: Task) -> Text:
        """Return the text."""
        return Text(self.text(task.fields["work"]), style=self.style)


class NoteColumn(ProgressColumn):
    """The note, cut where the line ends: the only column that rich may make narrower."""

    def render(self, task: Task) -> Text:
        """Return the note."""
        return Text(task.fields["work"].note, no_wrap=True, overflow="ellipsis")


def columns() -> list[ProgressColumn]:
    """Return the columns of a bar."""
    return [
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=bar_width(), table_column=Column(no_wrap=True)),
        WorkColumn(lambda work: work.percent, "progress.percentage"),
        WorkColumn(lambda work: work.rate_text, "cyan"),
        WorkColumn(lambda work: work.time, "progress.remaining"),
        NoteColumn(),
    ]


def bar_width() -> int:
    """Return the width of the bar itself, which gets a quarter of what a terminal has over 80 columns."""
    return min(NARROW_BAR + max(console.width - 80, 0) // 4, WIDE_BAR)


def is_live() -> bool:
    """Return whether bars can be drawn. CI services set FORCE_COLOR for logs, which show no bars."""
    forced = "FORCE_COLOR" in os.environ and not console.file.isatty()
    return console.is_interactive and not forced


@contextmanager
def progress(description: str, total: float | None, unit: str = "it") -> Iterator[Advance]:
    """Show a bar while the block runs; the block calls `advance(amount, note="loss 3.2")`.

    `advance(amount, earlier=True)` counts work of an earlier run, which is left out of the rate.

    Args:
        description: Name of the work.
        total: Amount of work in `unit`s, or None if it is not known.
        unit: Unit of the amounts.
    """
    work = Work(total, unit)
    show = bar if is_live() else log_lines
    with show(description, work) as changed:

        def advance(amount: float = 1, note: str | None = None, earlier: bool = False) -> None:
            if note is not None:
                work.note = note
            if earlier:
                work.restart(work.done + amount)
            else:
                work.add(amount)
            changed()

        yield advance
        work.finish()


@contextmanager
def bar(description: str, work: Work) -> Iterator[Callable[[], None]]:
    """Draw a bar while the block runs, and yield a function to call after each change."""
    place = os.environ.get(PLACE, "")
    place += " " if place else ""
    width = max(console.width - BESIDE_BAR - bar_width(), 12) - len(place)
    with Progress(*columns(), console=console) as bars:
        task = bars.add_task(place + shortened(description, width), total=work.total, work=work)
        yield lambda: bars.update(task, completed=work.done)
        bars.update(task, total=work.done or 1, completed=work.done or 1)


@contextmanager
def log_lines(description: str, work: Work) -> Iterator[Callable[[], None]]:
    """Print lines while the block runs, and yield a function to call after each change.

    The time between two lines is a twelfth of the time so far, within limits.
    """
    name = " ".join(filter(None, [os.environ.get(PLACE), description]))
    start = last = time.monotonic()

    def line() -> str:
        amount = f"{human(work.done)}/{human(work.total)}" if work.total else human(work.done)
        left = f"{work.time} left" if work.time and not work.finished else ""
        parts = [f"{name}: {amount} {work.unit}", work.rate_text, left, work.note]
        return ", ".join(filter(None, parts))

    def changed() -> None:
        nonlocal last
        now = time.monotonic()
        due = now - last >= min(max(LOG_SECONDS, (now - start) / 12), MAX_LOG_SECONDS)
        if due and not work.finished:  # the last line follows at the end
            last = now
            console.print(line(), soft_wrap=True)

    yield changed
    console.print(line(), soft_wrap=True)

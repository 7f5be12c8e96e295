"""Being asked to leave: a cluster that wants its machines back sends SIGTERM, or SIGUSR1 some minutes before its time limit.

A phase then finishes its step, writes a checkpoint and leaves with exit code 75, which means: start the same command again.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from clm_detour.utils.interrupt import interrupted

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Requeue(SystemExit):
    """Leave with `REQUEUE`; the same command goes on where this one stopped."""

    def __init__(self, why: str):
        super().__init__(REQUEUE)
        self.why = why

    def __str__(self) -> str:
        return self.why


@contextmanager
def on_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `handler` at each of `SIGNALS` while the block runs; only a main thread can.

    After Ctrl-C they stay handled: Composer's launcher sends SIGTERM then, which would end a process that is about to leave.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        if not interrupted():
            for number, old in before.items():
                signal.signal(number, old)


@contextmanager
def requeue_on_signals() -> Iterator[None]:
    """The frame of a command: outside of a training step it can leave at once, since files are written whole or not at all."""

    def leave(number: int, frame: FrameType | None) -> None:
        if not interrupted():
            raise Requeue(f"Asked to leave ({signal.Signals(number).name})")

    try:
        with on_signals(leave):
            yield
    except Requeue as request:
        print(f"{request}; exit code {REQUEUE}: the same command goes on here.", file=sys.stderr)
        raise


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Undo what an import in the block does to the handlers; Composer's replaces them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

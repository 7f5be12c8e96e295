"""Handle preemption: a cluster sends SIGTERM, or SIGUSR1 some minutes before its time limit.

A phase then finishes its step, writes a checkpoint and ends with exit code 75, which means: run the same
command again.
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
    """The end of a process with the exit code `REQUEUE`; the same command resumes."""

    def __init__(self, why: str):
        super().__init__(REQUEUE)
        self.why = why

    def __str__(self) -> str:
        return self.why


@contextmanager
def on_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `handler` at each of `SIGNALS` while the block runs; only the main thread can.

    After Ctrl-C the handler stays: Composer's launcher then sends SIGTERM, which would kill a process that is
    cleaning up.
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
def started_processes_ignore_requests() -> Iterator[None]:
    """Start processes in the block that SIGUSR1 does not reach: it is blocked in them, however they start.

    A cluster sends it to every process of a job, and it ends each process that has no handler.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def requeue_on_signals() -> Iterator[None]:
    """End the block with `Requeue` at one of `SIGNALS`. Training steps have a handler of their own."""

    def stop(number: int, frame: FrameType | None) -> None:
        if not interrupted():
            raise Requeue(f"Asked to leave ({signal.Signals(number).name})")

    try:
        with on_signals(stop):
            yield
    except Requeue as request:
        print(f"{request}; exit code {REQUEUE}: run the same command again to resume.", file=sys.stderr)
        raise


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the signal handlers after the block; the import of Composer replaces them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

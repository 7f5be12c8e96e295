"""Ctrl-C. The first one unwinds the program, so that no half-written file and no process stays behind; the second leaves at once.

A terminal sends SIGINT to every process of a command, and a process that started others passes it on, so signals that come within
`SAME_PRESS` seconds count as one. A thread sees the second one, so it also ends a long computation in native code.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from types import FrameType

INTERRUPTED = 130  # 128 + SIGINT, as shells count
SENTENCE = "Interrupted; the same command goes on where it stopped."
LAUNCHED = "CLM_DETOUR_LAUNCHED"  # in the environment of a process whose parent says the sentence
SAME_PRESS = 1.0
SHOW_CURSOR = b"\x1b[?25h"

_pressed = threading.Event()
_held = False


@contextmanager
def heed_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at the first SIGINT, and leave the process at the second.

    A process that was told to ignore SIGINT, as a shell tells those it starts in the background, goes on ignoring it.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler in (signal.SIG_IGN, interrupt_once) or not in_main_thread():
        yield
        return
    _pressed.clear()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=leave_at_second, args=(reader,), daemon=True).start()
    signal.signal(signal.SIGINT, interrupt_once)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    hook, sys.unraisablehook = sys.unraisablehook, leave_if_interrupted
    try:
        signal.pthread_sigmask(
            signal.SIG_UNBLOCK, {signal.SIGINT}
        )  # `interrupts_held` blocked it for this process
        yield
    finally:
        if not interrupted():  # else the process is about to end, and is to heed the second one to its end
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.set_wakeup_fd(before)
            sys.unraisablehook = hook
            os.close(writer)


def interrupted() -> bool:
    """Return whether Ctrl-C was pressed in this process."""
    return _pressed.is_set()


def interrupt_once(number: int, frame: FrameType | None) -> None:
    """Handle SIGINT: raise KeyboardInterrupt, but only for the first one.

    In an import leave at once. Native code that imports would print the exception, and other code would take it for a library that is missing.
    """
    if interrupted():
        return
    _pressed.set()
    if imports(frame):
        say_interrupted()
        leave()
    if not _held:
        raise KeyboardInterrupt


def leave_if_interrupted(lost: sys.UnraisableHookArgs) -> None:
    """Leave where Python cannot raise KeyboardInterrupt, as in a `__del__`; else the program would go on."""
    if lost.exc_type is KeyboardInterrupt:
        say_interrupted()
        leave()
    sys.__unraisablehook__(lost)


def imports(frame: FrameType | None) -> bool:
    """Return whether an import is under way in a frame or one of its callers."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def leave_at_second(signals: int) -> None:
    """Read the numbers of signals from a pipe, and leave the process at the second SIGINT."""
    first = None
    while number := os.read(signals, 1):
        if number[0] != signal.SIGINT:
            continue
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > SAME_PRESS:
            leave()
    os.close(signals)


def leave() -> None:
    """End this process. Its files are written whole or not at all, and its worker processes end with it."""
    if os.isatty(2):
        os.write(2, SHOW_CURSOR)  # a progress bar hid it
    os._exit(INTERRUPTED)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Put off SIGINT to the end of the block, in which processes are started: they begin with SIGINT blocked.

    Such a process then calls `leave_interrupts_to_parent` or `heed_interrupts`.
    """
    global _held
    if not in_main_thread() or _held:
        yield
        return
    _held, before = True, interrupted()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _held = False
    if interrupted() and not before:  # another thread received it
        raise KeyboardInterrupt


def leave_interrupts_to_parent() -> None:
    """Ignore SIGINT in this worker process: its parent decides. End when the parent ends, however that is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait for the end of the process that started this one, then leave."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def say_interrupted() -> None:
    """Print the sentence, unless another process does: the one that started this one, or the first of several."""
    if LAUNCHED not in os.environ and os.environ.get("RANK", "0") == "0":
        with suppress(OSError, RuntimeError):  # the terminal may be gone, or in the midst of another line
            print(SENTENCE, file=sys.stderr, flush=True)


def in_main_thread() -> bool:
    """Return whether signals can be handled here."""
    return threading.current_thread() is threading.main_thread()

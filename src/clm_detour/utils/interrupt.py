"""Handle Ctrl-C: the first one raises KeyboardInterrupt, and the second one ends the process at once.

KeyboardInterrupt lets the program remove incomplete files and end its worker processes. A terminal
sends SIGINT to every process of a command, and a process that started others passes it on, so signals within
`SAME_PRESS` seconds count as one. A thread waits for the second one, which therefore also ends a long
computation in native code.
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
SENTENCE = "Interrupted; run the same command again to resume."
LAUNCHED = "CLM_DETOUR_LAUNCHED"  # in the environment of a process whose parent prints the sentence
SAME_PRESS = 1.0  # seconds
SHOW_CURSOR = b"\x1b[?25h"

_pressed = threading.Event()
_held = False


@contextmanager
def handle_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at the first SIGINT, and end the process at the second.

    A process that ignores SIGINT, like those that a shell starts in the background, continues to ignore it.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler in (signal.SIG_IGN, interrupt_once) or not in_main_thread():
        yield
        return
    _pressed.clear()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=exit_at_second, args=(reader,), daemon=True).start()
    signal.signal(signal.SIGINT, interrupt_once)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    hook, sys.unraisablehook = sys.unraisablehook, exit_if_interrupted
    try:
        # `interrupts_held` in the parent process may have blocked it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        yield
    finally:
        if not interrupted():  # else the process is about to end, and handles a second one until then
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.set_wakeup_fd(before)
            sys.unraisablehook = hook
            os.close(writer)


def interrupted() -> bool:
    """Return whether this process has received SIGINT."""
    return _pressed.is_set()


def interrupt_once(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt at the first SIGINT.

    During an import, end the process at once: native code that imports would print the exception, and other
    code would conclude that a library is missing.
    """
    if interrupted():
        return
    _pressed.set()
    if imports(frame):
        print_interrupted()
        exit_now()
    if not _held:
        raise KeyboardInterrupt


def exit_if_interrupted(lost: sys.UnraisableHookArgs) -> None:
    """End the process where Python cannot raise KeyboardInterrupt, as in a `__del__`."""
    if lost.exc_type is KeyboardInterrupt:
        print_interrupted()
        exit_now()
    sys.__unraisablehook__(lost)


def imports(frame: FrameType | None) -> bool:
    """Return whether a frame or one of its callers runs an import."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def exit_at_second(signals: int) -> None:
    """Read the numbers of signals from a pipe, and end the process at the second SIGINT."""
    first = None
    while number := os.read(signals, 1):
        if number[0] != signal.SIGINT:
            continue
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > SAME_PRESS:
            exit_now()
    os.close(signals)


def exit_now() -> None:
    """End this process. Files are written atomically, and worker processes end with it."""
    if os.isatty(2):
        os.write(2, SHOW_CURSOR)  # a progress bar hides it
    os._exit(INTERRUPTED)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Defer SIGINT to the end of the block, and start processes in the block with SIGINT blocked.

    Such a process then calls `leave_interrupts_to_parent` or `handle_interrupts`.
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
    """Ignore SIGINT in this worker process, and end it when its parent ends, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait for the end of the parent process, then end this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def print_interrupted() -> None:
    """Print the sentence, unless the parent process or the first of several processes does."""
    if LAUNCHED not in os.environ and os.environ.get("RANK", "0") == "0":
        with suppress(OSError, RuntimeError):  # the terminal may be closed, or be printing
            print(SENTENCE, file=sys.stderr, flush=True)


def in_main_thread() -> bool:
    """Return whether signals can be handled here."""
    return threading.current_thread() is threading.main_thread()

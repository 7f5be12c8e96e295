"""Composer's launcher, which passes on the signals of a cluster: python -m clm_detour.train.launcher -n 4 scripts/train.py ...

`composer` alone dies of them and leaves its processes behind.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil
from composer.cli import launcher

from clm_detour.preemption import REQUEUE, on_signals


def main() -> None:
    """Launch, and leave with the code of the process that failed, or `REQUEUE` if they were asked to leave, here or on another machine."""
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        tell_processes(signal.Signals(number))

    with on_signals(pass_on), failures() as failed:
        code = launcher.main()
    sys.exit(exit_code(code, failed, bool(asked)))


def tell_processes(number: signal.Signals) -> None:
    """Send a signal to each process that is still there."""
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@contextmanager
def failures() -> Iterator[list[int]]:
    """The codes of the processes that failed by themselves: when one has, Composer ends the others."""
    failed: list[int] = []
    end_others = launcher._cleanup_processes

    def look_first(processes: dict[int, subprocess.Popen]) -> None:
        failed.extend(code for process in processes.values() if (code := process.poll()))
        end_others(processes)

    launcher._cleanup_processes = look_first
    try:
        yield failed
    finally:
        launcher._cleanup_processes = end_others


def exit_code(code: int, failed: list[int], asked: bool) -> int:
    """The launcher's own.

    Args:
        code: that of the process of lowest rank that did not end well, which may be `REQUEUE` because the launcher ended it.
        asked: whether the launcher was told to make them leave.
    """
    if asked:
        return REQUEUE if code else 0
    if failed:
        return next((one for one in failed if one != REQUEUE), REQUEUE)
    return 1 if code == REQUEUE else code


if __name__ == "__main__":
    main()

"""Composer's launcher, which passes on the signals of a cluster: python -m clm_detour.train.launcher -n 4 scripts/train.py ...

`composer` alone dies of them and leaves its processes behind.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

import psutil
from composer.cli import launcher

from clm_detour.preemption import REQUEUE, on_signals


def main() -> None:
    """Launch, and leave with the processes' exit code, or `REQUEUE` if they had to be asked to leave."""
    asked = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for process in psutil.Process().children():
            process.send_signal(signal.Signals(number))

    with on_signals(pass_on):
        code = launcher.main()
    sys.exit(REQUEUE if asked and code else code)


if __name__ == "__main__":
    main()

"""A command that runs as in a terminal, where Ctrl-C reaches all its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from clm_detour.utils.interrupt import SENTENCE

TIMEOUT = 300.0  # seconds; other tests may keep the machine busy


class Command:
    """A command in its own process group, with its output in a file."""

    def __init__(self, words: Sequence[str], log: Path, **environment: str):
        self.log = log
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        with open(log, "w") as file:
            self.process = subprocess.Popen(
                words,
                stdout=file,
                stderr=file,
                env=variables,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(
                    signal.SIGINT, signal.SIG_DFL
                ),  # the tests may run in the background
            )

    def said(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(errors="replace")

    def children(self) -> int:
        """Return the number of processes that it has started and that still run."""
        with suppress(psutil.NoSuchProcess):
            return len(psutil.Process(self.process.pid).children(recursive=True))
        return 0

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, and fail if the command ends before."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)

    def press_ctrl_c(self) -> None:
        """Send SIGINT to the process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> int:
        """Wait until all processes of the group have ended, and return the exit code."""
        code = self.process.wait(TIMEOUT)
        deadline = time.monotonic() + TIMEOUT
        while self._group_exists():
            assert time.monotonic() < deadline, "a process is left behind"
            time.sleep(0.01)
        return code

    def _group_exists(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def assert_leaves_at_ctrl_c(self) -> None:
        """Press Ctrl-C, and check for one sentence, exit code 130, no errors and no processes left."""
        self.press_ctrl_c()
        code, said = self.end(), self.said()
        assert code == 130, said
        assert said.count(SENTENCE) == 1, said
        assert not [word for word in ("Traceback", "Error", "ignored", "died") if word in said], said

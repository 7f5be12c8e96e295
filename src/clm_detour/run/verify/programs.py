"""Start the processes of the checks, read their results as they come, and end them at a deadline."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from clm_detour.records.store import read_lines
from clm_detour.records.verify import Check
from clm_detour.run.verify.checks import Group
from clm_detour.run.verify.settings import Settings, results_file
from clm_detour.utils.interrupt import LAUNCHED

POLL = 0.05  # seconds
WORKER = "clm_detour.run.verify.worker"
# Of a launcher around this command, which the processes started here are no part of.
LAUNCHER_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR",
                      "MASTER_PORT")  # fmt: skip


class Program:
    """A running program, with its output in a file.

    Args:
        words: Arguments of Python.
        name: Name of its files.
        variables: Environment variables beside those of this process.
    """

    def __init__(self, settings: Settings, name: str, words: Sequence[str], **variables: str):
        self.results = results_file(settings.path, name)
        self.log = settings.path / f"{name}.log"
        self.name = name
        kept = {key: value for key, value in os.environ.items() if key not in LAUNCHER_VARIABLES}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                stdout=log,
                stderr=log,
                env={**kept, LAUNCHED: "1", **variables},
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others
            )
        self.start = time.monotonic()

    def checks(
        self,
        group: Group,
        deadline: float,
        accepted: int = 0,
        watch: Callable[[Program], None] = lambda program: None,
    ) -> Iterator[Check]:
        """Yield the program's checks as they come, and a failed one if it dies or does not end.

        Args:
            group: Group in whose name its death is reported, until it has made a check.
            deadline: Seconds from its start after which it is ended.
            accepted: Exit code beside 0 that is no failure here.
            watch: Called again and again while the program runs.
        """
        seen = size = 0
        last = "its start"
        while True:
            over = self.process.poll() is not None or time.monotonic() - self.start > deadline
            if (now := size_of(self.results)) > size:
                size = now
                for check in list(read_lines(Check, self.results))[seen:]:
                    seen, last, group = seen + 1, check.name, Group(check.group)
                    yield check
            if over:
                break
            watch(self)
            time.sleep(POLL)
        code = self.process.poll()
        self.end()
        if code is None:
            yield group.failed(f"{self.name}: ends", f"no end after {deadline:.0f} s; last done: {last}")
        elif code not in (0, accepted):
            why = f"exit code {code} after {last!r}: {last_line(self.log)}"
            yield group.failed(f"{self.name}: ends", why)

    def end(self) -> None:
        """Kill the program and everything that it has started."""
        with suppress(psutil.NoSuchProcess):
            for process in [*psutil.Process(self.process.pid).children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()


def single(settings: Settings, name: str, **variables: str) -> Program:
    """Start a program, or several like `kernels+network`, in one process."""
    return Program(settings, name, ["-m", WORKER, name, settings.folder], **variables)


def launched(settings: Settings, name: str) -> Program:
    """Start a program in several processes, under the launcher of training."""
    return Program(settings, name, [*launcher(settings.processes), "-m", WORKER, name, settings.folder])


def launcher(processes: int) -> list[str]:
    """Return the arguments of Python that start the launcher."""
    return ["-m", "clm_detour.train.launcher", "-n", str(processes)]


def size_of(file: Path) -> int:
    """Return the size of a file, 0 if it does not exist."""
    return file.stat().st_size if file.exists() else 0


def last_line(log: Path) -> str:
    """Return the last line of a log, which names the error."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it printed nothing"

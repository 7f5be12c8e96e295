"""Processes that share a list of tasks, and what they have in common.

Processes are spawned, not forked: threads of this one (tokenizers', Arrow's) would not survive a fork. Each does one task at a time with
one thread; once fewer tasks are left than half the cores, a task may use as many threads as there are cores, so a part of the work that
is much larger than the others does not end on one core. They end when this process does, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from clm_detour.utils.environment import usable_cores
from clm_detour.utils.errors import UserError
from clm_detour.utils.interrupt import INTERRUPTED, interrupts_held, leave_interrupts_to_parent

Task = TypeVar("Task")
Result = TypeVar("Result")
POLL_SECONDS = 0.2
STOP = -1
OnProgress = Callable[..., None]


class Desk(Protocol):
    """What a task sees of the others."""

    def tick(self, *amounts: int) -> None:
        """Report amounts of work done since the last call; often enough that work can be stopped."""

    def threads(self) -> int:
        """How many threads this task should use now."""


class OwnDesk:
    """The desk of a task in this process: all cores are its own."""

    def __init__(self, on_progress: OnProgress):
        self.tick = on_progress

    def threads(self) -> int:
        """All."""
        return usable_cores()


class WorkerDesk:
    """The desk of a task in a process of its own."""

    def __init__(self, amounts: Any, turn: Any, unfinished: Any):
        self._amounts = amounts
        self._turn = turn
        self._unfinished = unfinished

    def tick(self, *amounts: int) -> None:
        """Send amounts to the process that shows them; leave if it wants to stop."""
        if self._unfinished.value == STOP:
            raise SystemExit(INTERRUPTED)
        with self._turn:
            self._amounts.send(amounts)

    def threads(self) -> int:
        """One, or all cores if half of them would be idle."""
        cores = usable_cores()
        threads = cores if 2 * self._unfinished.value <= cores else 1
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
        return threads


class Workers:
    """Run tasks of one kind after another: `work(common, task, desk)`.

    Args:
        common: sent once to each process.
        processes: at most; with one, everything happens here.
    """

    def __init__(self, common: Any, processes: int):
        self.common = common
        self.processes = processes
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._unfinished.value = STOP
            self._amounts.close()  # a process that waits for room in a full pipe fails instead, and ends
            self._executor.shutdown(wait=True, cancel_futures=True)

    def run(
        self,
        work: Callable[[Any, Task, Desk], Result],
        tasks: Sequence[Task],
        on_progress: OnProgress = lambda *_: None,
    ) -> list[Result]:
        """The results, in the order of the tasks; tasks begin in that order too.

        Raises:
            UserError: one that a task raised, or a process was killed.
        """
        if min(self.processes, len(tasks)) <= 1:
            return [work(self.common, task, OwnDesk(on_progress)) for task in tasks]
        executor = self._started()
        self._unfinished.value = len(tasks)
        with interrupts_held():
            futures: list[Future[Result]] = [executor.submit(call, work, task) for task in tasks]
        waiting: set[Future[Result]] = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
                self._unfinished.value = len(waiting)
                self._show(on_progress)
                for future in done:
                    future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "A process that prepares data was killed, most likely for want of memory: set data.processes lower "
                "and run the same command again; it goes on where it stopped."
            ) from error
        except BaseException:
            self._unfinished.value = STOP
            raise
        self._show(on_progress)
        return [future.result() for future in futures]

    def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            self._amounts, sender = context.Pipe(duplex=False)
            self._unfinished = context.Value("i", 0)
            desk = (sender, context.Lock(), self._unfinished)
            self._executor = ProcessPoolExecutor(self.processes, context, start, (self.common, *desk))
        return self._executor

    def _show(self, on_progress: OnProgress) -> None:
        while self._amounts.poll():
            on_progress(*self._amounts.recv())


_here: tuple[Any, Desk] | None = None  # of this process, if it is a worker


def start(common: Any, *desk: Any) -> None:
    """The beginning of a worker process."""
    global _here
    leave_interrupts_to_parent()
    _here = common, WorkerDesk(*desk)


def call(work: Callable[[Any, Task, Desk], Result], task: Task) -> Result:
    """One task in a worker process."""
    assert _here is not None
    return work(_here[0], task, _here[1])

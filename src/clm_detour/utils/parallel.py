"""Run one function over many tasks, in this process or in several worker processes.

joblib's loky back end starts the workers of a call, and they end with it, however it ends. They are new
processes, not forks, since the threads of this one (of tokenizers, of Arrow) would not survive a fork. Each
runs one task at a time. A board, a small file that all of them map, carries their progress and the wish to
stop.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor, process_executor

from clm_detour.utils.environment import usable_cores
from clm_detour.utils.errors import UserError
from clm_detour.utils.interrupt import INTERRUPTED, interrupts_held
from clm_detour.utils.signals import SIGNALS

Task = TypeVar("Task")
Result = TypeVar("Result")
AMOUNTS = 3  # in a report, at most
POLL_SECONDS = 0.2
STOP = -1  # on the board in place of the number of unfinished tasks


@dataclass(frozen=True)
class Worker:
    """The process that runs a task, as the task sees it.

    Args:
        processes: Number of processes that share the tasks.
        report: Function that adds up to `AMOUNTS` integers, amounts of work done, to the progress of the
            call.
        threads: Function that returns the number of threads the task should use now. It is 1 while there are
            tasks for the other cores, and all cores later, so that a large task does not end on one core.
    """

    processes: int
    report: Callable[..., None]
    threads: Callable[[], int]


def parallel_map(
    function: Callable[[Any, Task, Worker], Result],
    tasks: Sequence[Task],
    common: Any = None,
    *,
    processes: int = 1,
    devices: Sequence[str] = (),
    on_progress: Callable[..., None] = lambda *amounts: None,
    on_result: Callable[[Result], None] = lambda result: None,
    remedy: str = "use fewer processes",
) -> list[Result]:
    """Return `function(common, task, worker)` of each task, in the order of the tasks.

    The tasks begin in that order too. Function, tasks and results must be picklable. An exception, in a task
    or here, ends the workers at once; files that they were writing are left behind.

    Args:
        common: Argument that all tasks share. It is sent to each worker once.
        processes: Number of worker processes. With 1, or with a single task, everything runs in this process.
        devices: Values of `CUDA_VISIBLE_DEVICES`, which the workers take in turn.
        on_progress: Function that receives the amounts reported since its last call. Workers always give
            `AMOUNTS`.
        on_result: Function that receives each result as soon as it is there.
        remedy: What to change if a worker runs out of memory, for the error.

    Raises:
        UserError: If a worker was killed, or if a task raised it.
    """
    processes = min(processes, len(tasks))
    if processes <= 1:
        here = Worker(1, on_progress, usable_cores)
        results = []
        for task in tasks:
            results.append(function(common, task, here))
            on_result(results[-1])
        return results
    with TemporaryDirectory(prefix="clm-detour-") as folder:
        board = np.memmap(Path(folder, "board"), np.int64, "w+", shape=(1 + len(tasks), AMOUNTS))
        board[0, 0] = len(tasks)
        start = (folder, board.shape, os.getpid(), processes, tuple(devices), common)
        calls = [delayed(run_task)(function, number, task) for number, task in enumerate(tasks)]
        finished: queue.SimpleQueue[tuple[int, Result] | BaseException] = queue.SimpleQueue()
        thread = threading.Thread(target=run_calls, args=(calls, processes, start, finished), daemon=True)
        try:
            resource_tracker.ensure_running()  # where it is started later, Python 3.11 unblocks Ctrl-C again
            with interrupts_held():  # the thread and the processes that it starts do not receive Ctrl-C
                thread.start()
            return collect(board, finished, on_progress, on_result)
        except process_executor.TerminatedWorkerError as error:
            raise UserError(
                f"A worker process was killed, most likely for lack of memory: {remedy} and run the same "
                "command again; it resumes where it stopped."
            ) from error
        finally:
            board[0, 0] = STOP
            thread.join()


def run_calls(calls: Sequence[Any], processes: int, start: tuple[Any, ...], finished: Any) -> None:
    """Run calls in workers. Put each result into a queue, or the exception that ends them.

    This runs in a thread, so that Ctrl-C meets `collect`: joblib would leave an executor half closed.
    """
    try:
        run = Parallel(
            processes, backend="loky", return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1,
            max_nbytes=None, initializer=start_worker, initargs=start,
        )  # fmt: skip
        for result in run(calls):
            finished.put(result)
    except BaseException as error:
        finished.put(error)
    finally:
        get_reusable_executor(reuse=True).shutdown(kill_workers=True)


def collect(
    board: np.ndarray, finished: Any, on_progress: Callable[..., None], on_result: Callable[[Any], None]
) -> list[Any]:
    """Return the results of all tasks in order, and show progress until they are there."""
    found: dict[int, Any] = {}
    tasks, shown = len(board) - 1, np.zeros(AMOUNTS, np.int64)
    while len(found) < tasks:
        try:
            result = finished.get(timeout=POLL_SECONDS)
        except queue.Empty:
            result = None
        amounts = board[1:].sum(axis=0)
        if (amounts > shown).any():
            on_progress(*(amounts - shown).tolist())
        shown = amounts
        if isinstance(result, BaseException):
            raise result
        if result is not None:
            found[result[0]] = result[1]
            board[0, 0] -= 1
            on_result(result[1])
    return [found[number] for number in range(tasks)]


_common: Any = None  # these are set in a worker only
_board: np.ndarray
_processes: int


def start_worker(
    folder: str, shape: tuple[int, int], parent: int, processes: int, devices: Sequence[str], common: Any
) -> None:
    """Prepare a worker process: leave signals to the parent, take a device, keep what all tasks share."""
    global _common, _board, _processes
    for number in (signal.SIGINT, *SIGNALS):  # not ignored, so that programs started from here obey them
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    process_executor._USE_PSUTIL = False  # loky would replace a worker whose memory has grown by 300 MB
    _board = np.memmap(Path(folder, "board"), np.int64, "r+", shape=shape)
    _common, _processes = common, processes
    threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[worker_number(Path(folder)) % len(devices)]


def end_with_parent(parent: int) -> None:
    """End this worker process when its parent has ended or wants it to stop."""
    while os.getppid() == parent and _board[0, 0] != STOP:
        time.sleep(POLL_SECONDS)
    os._exit(INTERRUPTED)


def worker_number(folder: Path) -> int:
    """Return the first number that no other worker of this call has taken."""
    number = 0
    while True:
        try:
            (folder / f"worker-{number}").touch(exist_ok=False)
            return number
        except FileExistsError:
            number += 1


def run_task(function: Callable[[Any, Task, Worker], Result], number: int, task: Task) -> tuple[int, Result]:
    """Run a task in a worker process. Return its number and its result."""
    row = _board[1 + number]

    def report(*amounts: int) -> None:
        row[: len(amounts)] += amounts

    def threads() -> int:
        cores = usable_cores()
        return cores if 2 * _board[0, 0] <= cores else 1

    return number, function(_common, task, Worker(_processes, report, threads))

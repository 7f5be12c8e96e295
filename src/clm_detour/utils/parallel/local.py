"""The engine of one machine: tasks run in this process, or in several worker processes.

joblib's loky back end starts the workers of a call, and they end with it, however it ends. They are new
processes, not forks, since the threads of this one (of tokenizers, of Arrow) would not survive a fork. Each
runs one task at a time. A board, a small file that all of them map, carries their progress and the wish to
stop.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor, process_executor
from joblib.externals.loky.backend.reduction import dumps

from clm_detour.utils.environment import usable_cores
from clm_detour.utils.errors import UserError
from clm_detour.utils.interrupt import INTERRUPTED, interrupts_held
from clm_detour.utils.parallel.worker import AMOUNTS, POLL_SECONDS, Call, Worker
from clm_detour.utils.signals import SIGNALS

STOP = -1  # on the board in place of the number of unfinished tasks


def map_here(call: Call) -> list[Any]:
    """Return the results of a call whose tasks run one after the other in this process."""
    here = Worker(1, usable_cores(), call.on_progress, usable_cores)
    results = []
    for task in call.tasks:
        results.append(call.function(call.common, task, here))
        call.on_result(results[-1])
    return results


def map_on_processes(call: Call) -> list[Any]:
    """Return the results of a call whose tasks run in worker processes.

    Raises:
        UserError: If a worker was killed, or if a task raised it.
    """
    with TemporaryDirectory(prefix="clm-detour-") as folder:
        board = np.memmap(Path(folder, "board"), np.int64, "w+", shape=(1 + len(call.tasks), AMOUNTS))
        board[0, 0] = len(call.tasks)
        devices = visible_devices() if call.on_gpus else []
        common = bytes(dumps(call.common))
        start = (folder, board.shape, os.getpid(), call.at_a_time, devices, common)
        calls = [delayed(run_task)(call.function, number, task) for number, task in enumerate(call.tasks)]
        finished: queue.SimpleQueue[tuple[int, Any] | BaseException] = queue.SimpleQueue()
        thread = threading.Thread(
            target=run_calls, args=(calls, call.at_a_time, start, finished), daemon=True
        )
        try:
            resource_tracker.ensure_running()  # where it is started later, Python 3.11 unblocks Ctrl-C again
            with interrupts_held():  # the thread and the processes that it starts do not receive Ctrl-C
                thread.start()
            return collect(board, finished, call.on_progress, call.on_result)
        except process_executor.TerminatedWorkerError as error:
            raise UserError(
                f"A worker process was killed, most likely for lack of memory: {call.remedy} and run the "
                "same command again; it resumes where it stopped."
            ) from error
        finally:
            board[0, 0] = STOP
            thread.join()


def visible_devices() -> list[str]:
    """Return the GPUs that processes started here would use, as values of `CUDA_VISIBLE_DEVICES`."""
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return visible.split(",")
    import torch  # workers that prepare data import this module, and need no torch

    return [str(gpu) for gpu in range(torch.cuda.device_count())]


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
    folder: str, shape: tuple[int, int], parent: int, processes: int, devices: Sequence[str], common: bytes
) -> None:
    """Prepare a worker process: leave signals to the parent, take a device, keep what all tasks share.

    Args:
        common: What all tasks share, pickled. Reading it can import slow packages, such as torch, so it is
            read when this process already ends with its parent.
    """
    global _common, _board, _processes
    for number in (signal.SIGINT, *SIGNALS):  # not ignored, so that programs started from here obey them
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    process_executor._USE_PSUTIL = False  # loky would replace a worker whose memory has grown by 300 MB
    _board = np.memmap(Path(folder, "board"), np.int64, "r+", shape=shape)
    _processes = processes
    threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[worker_number(Path(folder)) % len(devices)]
    _common = pickle.loads(common)


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


def run_task(function: Callable[[Any, Any, Worker], Any], number: int, task: Any) -> tuple[int, Any]:
    """Run a task in a worker process. Return its number and its result."""
    row = _board[1 + number]

    def report(*amounts: int) -> None:
        row[: len(amounts)] += amounts

    def threads() -> int:
        cores = usable_cores()
        return cores if 2 * _board[0, 0] <= cores else 1

    cores = max(1, usable_cores() // _processes)
    return number, function(_common, task, Worker(_processes, cores, report, threads))

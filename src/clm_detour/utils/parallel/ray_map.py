"""The engine of a cluster: tasks run in worker processes of all machines, which Ray starts.

This process hands out the tasks in their order, collects results, and counts how often a task was lost with
its worker or machine. A lost task is run again, at the end of the line, and starts from the files that it
left. Progress travels through an actor on this machine, at most twice a second for each task.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import ray
from ray import ObjectRef
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from clm_detour.utils.errors import UserError
from clm_detour.utils.parallel.ray_cluster import Cluster, live_nodes, places
from clm_detour.utils.parallel.worker import AMOUNTS, POLL_SECONDS, Call, Worker
from clm_detour.utils.progress import warn

LOST = (WorkerCrashedError, NodeDiedError, OutOfMemoryError, ObjectLostError)
ATTEMPTS = 4  # of a task that is lost each time
AHEAD = 1000  # tasks that are handed to Ray at a time, at most
REPORT_SECONDS = 0.5
END_SECONDS = 10.0  # for the workers of a call that failed


def map_on_cluster(call: Call, cluster: Cluster) -> list[Any]:
    """Return the results of a call whose tasks run on a cluster.

    Raises:
        UserError: If no machine has the CPUs and GPUs of a task, if the same task was lost several times, or
            if a task raised it.
    """
    return ClusterCall(call, cluster).run()


class ClusterCall:
    """The state of a call: tasks that wait, that run, and that are done."""

    def __init__(self, call: Call, cluster: Cluster):
        self.call = call
        self.cluster = cluster
        self.id = uuid.uuid4().hex
        self.cpus, self.gpus = cluster.size_of_task(call.at_a_time, call.on_gpus)
        self.remote = ray.remote(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_retries=0,  # lost tasks are counted here, those without memory included
            max_calls=1 if self.gpus else 0,  # the next run may get another GPU
        )(run_task)
        self.common = ray.put(call.common)
        self.waiting = deque(range(len(call.tasks)))
        self.running: dict[ObjectRef, int] = {}
        self.lost: Counter[int] = Counter()
        self.results: dict[int, Any] = {}
        self.amounts = np.zeros(AMOUNTS, np.int64)  # of tasks that are done
        self.shown = np.zeros(AMOUNTS, np.int64)
        self.asked: ObjectRef | None = None  # for the amounts of tasks that are running

    def run(self) -> list[Any]:
        """Return the results of all tasks in order, and show progress until they are there."""
        try:
            while len(self.results) < len(self.call.tasks):
                while self.waiting and len(self.running) < min(self.call.at_a_time, AHEAD):
                    self.submit(self.waiting.popleft())
                for ref in self.finished():
                    self.take(ref)
                self.show_progress()
        finally:
            self.end()
        return [self.results[number] for number in range(len(self.call.tasks))]

    def submit(self, number: int) -> None:
        """Hand a task to Ray."""
        place = (self.id, number, self.cpus, self.cluster.cores, os.getcwd())
        task = self.call.tasks[number]
        ref = self.remote.remote(self.call.function, task, [self.common], self.cluster.board, place)
        self.running[ref] = number

    def finished(self) -> list[ObjectRef]:
        """Return the tasks that have ended, after waiting for one of them for a moment."""
        refs = list(self.running)
        if self.cluster.ask(ray.wait, refs, timeout=POLL_SECONDS)[0]:
            return self.cluster.ask(ray.wait, refs, num_returns=len(refs), timeout=0)[0]
        return []

    def take(self, ref: ObjectRef) -> None:
        """Keep the result of a task that has ended, or put the task at the end of the line if it was lost.

        Raises:
            UserError: If it was lost several times, or has raised it.
        """
        number = self.running.pop(ref)
        try:
            result, amounts = self.cluster.ask(ray.get, ref)
        except LOST as error:
            self.count_lost(number, error)
            return
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        self.results[number] = result
        self.amounts += amounts
        self.call.on_result(result)

    def count_lost(self, number: int, error: Exception) -> None:
        """Put a lost task at the end of the line, where it may find more memory."""
        self.lost[number] += 1
        died = isinstance(error, NodeDiedError)
        if self.lost[number] == ATTEMPTS:
            why = "with their machines" if died else "most likely for lack of memory"
            remedy = "" if died else f"{self.call.remedy} and "
            raise UserError(
                f"The worker processes of one task ended {ATTEMPTS} times, {why}: {remedy}run the same "
                "command again; it resumes where it stopped."
            ) from error
        warn(f"A {'machine' if died else 'worker process'} was lost; its task is done again.")
        if not places(live_nodes(), self.cpus, self.gpus):
            warn(
                "No machine of the cluster is large enough for a task now. Add one, or interrupt the command "
                "and run it again."
            )
        self.waiting.append(number)

    def show_progress(self) -> None:
        """Hand on what tasks have reported. A task that is done again adds nothing until it is further."""
        amounts = self.amounts.copy()
        for number, some in self.reported().items():
            if number not in self.results:
                amounts += np.array(some)
        new = np.maximum(amounts - self.shown, 0)
        if new.any():
            self.call.on_progress(*new.tolist())
            self.shown += new

    def reported(self) -> dict[int, list[int]]:
        """Return the amounts of the tasks that are running, if the board has answered."""
        if self.asked is None:
            self.asked = self.cluster.board.read.remote(self.id)
        if not self.cluster.ask(ray.wait, [self.asked], timeout=0)[0]:
            return {}
        ref, self.asked = self.asked, None
        with suppress(RayActorError):  # the board is started again, and the next reports are whole
            return self.cluster.ask(ray.get, ref)
        return {}

    def end(self) -> None:
        """Kill the tasks that are still running, if a call has failed, and wait for their end."""
        refs = list(self.running)
        for ref in refs:
            ray.cancel(ref, force=True)
        if refs:
            self.cluster.ask(ray.wait, refs, num_returns=len(refs), timeout=END_SECONDS)
        self.cluster.board.forget.remote(self.id)


def run_task(
    function: Callable[[Any, Any, Worker], Any],
    task: Any,
    common: Sequence[ObjectRef],
    board: Any,
    place: tuple[str, int, int, int, str],
) -> tuple[Any, list[int]]:
    """Run a task in a worker process. Return its result and the amounts that it has reported.

    Args:
        common: What all tasks share, in a list so that Ray does not fetch it for each task.
        board: Handle of the `Board`.
        place: Call, number of the task, its CPUs, the CPUs of the cluster, and the current folder.
    """
    call, number, cpus, cores, folder = place
    os.chdir(folder)  # paths may be relative
    amounts = [0] * AMOUNTS
    sent = time.monotonic()

    def report(*some: int) -> None:
        nonlocal sent
        for index, amount in enumerate(some):
            amounts[index] += amount
        if time.monotonic() - sent >= REPORT_SECONDS:
            board.set.remote(call, number, amounts)
            sent = time.monotonic()

    result = function(fetched(common[0]), task, Worker(cores, cpus, report, lambda: cpus))
    return result, amounts


_common: dict[str, Any] = {}


def fetched(ref: ObjectRef) -> Any:
    """Return an object of the cluster, which this worker process keeps until it is asked for another."""
    key = ref.hex()
    if key not in _common:
        _common.clear()
        _common[key] = ray.get(ref)
    return _common[key]

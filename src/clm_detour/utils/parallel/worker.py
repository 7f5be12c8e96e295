"""Types that the engines share: the call to be made, and the process that runs a task, as it sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

AMOUNTS = 3  # in a report, at most
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Worker:
    """The process that runs a task, as the task sees it.

    Args:
        processes: Number of processes that share the tasks; on a cluster, the number of its CPUs.
        cores: Number of cores for this process while the others are busy, too.
        report: Function that adds up to `AMOUNTS` integers, amounts of work done, to the progress of the
            call.
        threads: Function that returns the number of threads the task should use now. On one machine it is 1
            while there are tasks for the other cores, and all cores later, so that a large task does not end
            on one core. On a cluster it is `cores`.
    """

    processes: int
    cores: int
    report: Callable[..., None]
    threads: Callable[[], int]


@dataclass(frozen=True)
class Call:
    """The arguments of one `parallel_map`, for the engine that runs it.

    Args:
        at_a_time: Largest number of tasks at a time, at most the number of tasks.
    """

    function: Callable[[Any, Any, Worker], Any]
    tasks: Sequence[Any]
    common: Any
    at_a_time: int
    on_gpus: bool
    on_progress: Callable[..., None]
    on_result: Callable[[Any], None]
    remedy: str

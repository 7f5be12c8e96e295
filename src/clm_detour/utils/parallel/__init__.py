"""Run one function over many tasks: here, in processes of this machine, or on the machines of a Ray cluster.

`parallel_map` is the only function that callers need. Where its tasks run is chosen once, by the `Engine`
that a command is given, and holds in the block `with engine.serving(...)`. The contract is the same for all
engines: results in the order of the tasks, progress while they run, and the first exception ends the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from clm_detour.utils.environment import usable_cores
from clm_detour.utils.parallel.engine import LOCAL, Engine, current_cluster
from clm_detour.utils.parallel.local import map_here, map_on_processes
from clm_detour.utils.parallel.worker import Call, Worker

__all__ = ["LOCAL", "Engine", "Worker", "all_cores", "current_cluster", "parallel_map"]

Task = TypeVar("Task")
Result = TypeVar("Result")


def parallel_map(
    function: Callable[[Any, Task, Worker], Result],
    tasks: Sequence[Task],
    common: Any = None,
    *,
    processes: int = 1,
    on_gpus: bool = False,
    on_progress: Callable[..., None] = lambda *amounts: None,
    on_result: Callable[[Result], None] = lambda result: None,
    remedy: str = "use fewer processes",
) -> list[Result]:
    """Return `function(common, task, worker)` of each task, in the order of the tasks.

    The tasks begin in that order too. Function, tasks and results must be picklable. An exception, in a task
    or here, ends the workers at once; files that they were writing are left behind. On a cluster a task whose
    worker is lost is run again, so it must be able to start from the files that it left.

    Args:
        common: Argument that all tasks share. It is sent to each worker once.
        processes: Largest number of tasks at a time. On one machine, 1 or a single task runs in this process;
            on a cluster, every task runs in a worker.
        on_gpus: Whether the tasks use GPUs, which the workers then take in turn.
        on_progress: Function that receives the amounts reported since its last call. Workers always give
            `AMOUNTS`.
        on_result: Function that receives each result as soon as it is there.
        remedy: What to change if a worker runs out of memory, for the error.

    Raises:
        UserError: If a worker was killed (on a cluster, several times for the same task), or if a task raised
            it.
    """
    at_a_time, cluster = min(processes, len(tasks)), current_cluster()
    call = Call(function, tasks, common, at_a_time, on_gpus, on_progress, on_result, remedy)
    if cluster is not None and tasks:
        from clm_detour.utils.parallel.ray_map import map_on_cluster  # imports Ray, which may be missing

        return map_on_cluster(call, cluster)
    return map_here(call) if at_a_time <= 1 else map_on_processes(call)


def all_cores() -> int:
    """Return the number of tasks for which there are cores: those of this machine, or of the cluster."""
    cluster = current_cluster()
    return usable_cores() if cluster is None else cluster.cores

"""Measure the engines of `parallel_map` beside `concurrent.futures`: overhead a task, and scaling.

    python benchmarks/engine.py --tasks 2000 --rounds 3

Each engine runs empty tasks, of which the time of a call with two tasks is subtracted, and then a fixed
amount of arithmetic in pure Python, divided into tasks, on one worker and on two. One worker of the local
engine is this process. Without Ray, its row is left out.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Annotated, Any

import typer
from record import ResultName, record
from rich.console import Console
from rich.table import Table

from clm_detour.utils.parallel import LOCAL, Engine, Worker, parallel_map

Map = Callable[[Callable[..., int], Sequence[int], int], object]
PIECES = 16
OBJECT_STORE = 100 * 2**20


def nothing(common: object, task: int, worker: Worker | None) -> int:
    """Return at once."""
    return task


def arithmetic(common: object, task: int, worker: Worker | None) -> int:
    """Add up `task` squares."""
    return sum(number * number for number in range(task))


def by_parallel_map(function: Callable[..., int], tasks: Sequence[int], workers: int) -> object:
    """Run tasks on the engine that serves now."""
    return parallel_map(function, tasks, processes=workers)


def by_futures(function: Callable[..., int], tasks: Sequence[int], workers: int) -> object:
    """Run tasks with the standard library, in new processes as the other engines do."""
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        return list(pool.map(function, [None] * len(tasks), tasks, [None] * len(tasks)))


@contextmanager
def on_ray(workers: int) -> Iterator[None]:
    """Start a cluster of one node on this machine for the block, and let it serve."""
    import ray

    start = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    ray.init("local", **start, log_to_driver=False)
    try:
        with Engine("auto").serving([]):
            yield
    finally:
        ray.shutdown()


@contextmanager
def here(workers: int) -> Iterator[None]:
    """Let this machine serve."""
    with LOCAL.serving([]):
        yield


def engines() -> dict[str, tuple[Map, Callable[[int], Any]]]:
    """Return the function of each engine that runs tasks, and the block in which it does, by its name."""
    found: dict[str, tuple[Map, Callable[[int], Any]]] = {
        "concurrent.futures": (by_futures, here),
        "local (joblib)": (by_parallel_map, here),
    }
    if importlib.util.find_spec("ray"):
        found["ray"] = (by_parallel_map, on_ray)
    return found


def seconds(run: Map, function: Callable[..., int], tasks: Sequence[int], workers: int) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    run(function, tasks, workers)
    return time.perf_counter() - start


def measure(run: Map, block: Callable[[int], Any], tasks: int, size: int) -> dict[str, float]:
    """Return the seconds of one engine in one round."""
    found = {}
    for workers in (1, 2):
        with block(workers):
            run(nothing, range(2), workers)  # starts the workers of engines that keep them
            if workers == 2:
                found["two_tasks"] = seconds(run, nothing, range(2), workers)
                found["empty_tasks"] = seconds(run, nothing, range(tasks), workers)
            found[f"work_on_{workers}"] = seconds(run, arithmetic, [size // PIECES] * PIECES, workers)
    return found


def main(
    tasks: Annotated[int, typer.Option(min=10, help="Number of empty tasks.")] = 2000,
    size: Annotated[int, typer.Option(min=PIECES, help="Squares to add up.")] = 200_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, of which medians are taken.")] = 3,
    name: ResultName = "engine",
) -> None:
    """Measure all engines in turns, and print and record the medians."""
    rows: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines()}
    for _ in range(rounds):
        for engine, (run, block) in engines().items():
            rows[engine].append(measure(run, block, tasks, size))
    table = Table("engine", "a call of two tasks", "overhead a task", "work on 1", "work on 2", "speed-up")
    results = {}
    for engine, measured in rows.items():
        median = {key: statistics.median(row[key] for row in measured) for key in measured[0]}
        overhead = (median["empty_tasks"] - median["two_tasks"]) / (tasks - 2)
        speedup = median["work_on_1"] / median["work_on_2"]
        results[engine] = {**median, "overhead_a_task": overhead, "speedup": speedup, "rounds": measured}
        table.add_row(
            engine,
            f"{median['two_tasks']:.3f} s",
            f"{1e3 * overhead:.2f} ms",
            f"{median['work_on_1']:.2f} s",
            f"{median['work_on_2']:.2f} s",
            f"{speedup:.2f}",
        )
    Console(width=110).print(table)
    if name:
        path = record(name, {"tasks": tasks, "size": size, "engines": results}, ("joblib", "ray"))
        print(f"Wrote {path}")


if __name__ == "__main__":
    typer.run(main)

"""A Ray cluster of several nodes on this machine, each with one CPU, for the tests of the engine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
TIMEOUT = 300.0  # seconds; other tests may keep the machine busy
LOSE, HALF_DONE = "lose-this-node", "half-done"


@contextmanager
def ray_cluster(nodes: int, *folders: Path) -> Iterator[Any]:
    """Start a cluster whose workers can import test modules from these folders."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    paths = [str(TESTS), *map(str, folders), *filter(None, [before.get("PYTHONPATH")])]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # 15 by default; other tests may keep the machine busy
    }
    cluster = Cluster(initialize_head=True, head_node_args={**SMALL, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**SMALL)
        yield cluster
    finally:
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def second_node_lost(cluster: Any, folder: Path) -> Iterator[None]:
    """Kill the second node as soon as one of its tasks has called `hang_if_lost` with this folder."""
    [second] = cluster.worker_nodes
    (folder / LOSE).write_text(second.node_id)

    def kill() -> None:
        wait_until((folder / HALF_DONE).exists)
        cluster.remove_node(second, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    thread.join()
    assert not cluster.worker_nodes


def hang_if_lost(folder: Path) -> None:
    """Say that a task is half done, and hang, if this node is the one that is to be lost."""
    import ray

    if ray.get_runtime_context().get_node_id() == (folder / LOSE).read_text():
        (folder / HALF_DONE).touch()
        threading.Event().wait()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)

"""A Ray cluster of several nodes on this machine, each with one CPU, for the tests of the engine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
TIMEOUT = 120.0


@contextmanager
def ray_cluster(nodes: int, *folders: Path) -> Iterator[Any]:
    """Start a cluster whose workers can import test modules from these folders."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    paths = [str(TESTS), *map(str, folders), *filter(None, [before.get("PYTHONPATH")])]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    cluster = Cluster(initialize_head=True, head_node_args=SMALL)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**{key: value for key, value in SMALL.items() if key != "include_dashboard"})
        yield cluster
    finally:
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)

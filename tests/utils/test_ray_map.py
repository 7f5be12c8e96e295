"""A cluster loses workers and machines, is too small, or does not share a folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from clm_detour.utils.errors import UserError
from clm_detour.utils.parallel import Engine, Worker, all_cores, parallel_map
from ray_nodes import TIMEOUT, ray_cluster, wait_until

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(1, Path(__file__).parent) as found:
        yield found


@pytest.fixture
def second(cluster) -> Iterator[Any]:
    """A second machine of the cluster; a test may kill it."""
    node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    yield node
    if node in cluster.worker_nodes:
        cluster.remove_node(node)


def node_of_this_process() -> str:
    return ray.get_runtime_context().get_node_id()


def wait_for_release(folder: Path, task: int, worker: Worker) -> int:
    (folder / f"{task}-{node_of_this_process()}-{os.getpid()}").touch()
    worker.report(1)
    deadline = time.monotonic() + TIMEOUT
    while not (folder / "release").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return task * task


def test_a_task_whose_machine_is_lost_is_done_again_and_no_other_is(cluster, second, tmp_path, capsys):
    def lose_second() -> None:
        wait_until(lambda: len(list(tmp_path.glob("*-*"))) == 2)
        [held] = tmp_path.glob(f"*-{second.node_id}-*")
        cluster.remove_node(second, allow_graceful=False)
        wait_until(lambda: not psutil.pid_exists(int(held.name.rpartition("-")[2])))
        (tmp_path / "release").touch()

    thread = threading.Thread(target=lose_second)
    amounts = []
    with Engine(cluster.address).serving([tmp_path / "shared"]):
        assert all_cores() == 2
        (tmp_path / "shared").rmdir()
        thread.start()
        found = parallel_map(
            wait_for_release,
            range(4),
            tmp_path,
            processes=4,
            on_progress=lambda *some: amounts.append(some[0]),
        )
    thread.join()
    assert found == [0, 1, 4, 9]
    begun = Counter(int(path.name.partition("-")[0]) for path in tmp_path.glob("*-*"))
    assert sorted(begun.values()) == [1, 1, 1, 2]
    assert sum(amounts) in (4, 5)  # a report of the lost attempt may have come
    assert "was lost; its task is done again" in " ".join(capsys.readouterr().err.split())


def kill_yourself(folder: Path, task: int, worker: Worker) -> None:
    (folder / f"{task}-{os.getpid()}").touch()
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_is_killed_again_and_again_ends_with_the_remedy(cluster, tmp_path):
    with Engine(cluster.address).serving([]), pytest.raises(UserError) as raised:
        parallel_map(kill_yourself, range(3), tmp_path, processes=3, remedy="set jobs lower")
    assert "ended 4 times, most likely for lack of memory: set jobs lower and run the same command" in str(
        raised.value
    )
    assert len(list(tmp_path.glob("1-*"))) == 4
    assert len(list(tmp_path.glob("2-*"))) == 1


def device(folder: Path, task: int, worker: Worker) -> tuple[str, int]:
    (folder / str(task)).touch()
    deadline = time.monotonic() + TIMEOUT
    while len(list(folder.iterdir())) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)  # until all four run at the same time
    return os.environ["CUDA_VISIBLE_DEVICES"], worker.cores


def test_two_runs_share_a_gpu(cluster, tmp_path):
    node = cluster.add_node(num_cpus=9, num_gpus=2, object_store_memory=100 * 2**20)
    try:
        with Engine(cluster.address, gpus_per_run=0.5).serving([]):
            found = parallel_map(device, range(4), tmp_path, processes=8, on_gpus=True)
        assert sorted(found) == [("0", 2), ("0", 2), ("1", 2), ("1", 2)]
    finally:
        cluster.remove_node(node)


def test_a_cluster_without_the_gpus_of_a_run(cluster):
    with Engine(cluster.address, 0.5).serving([]), pytest.raises(UserError, match=r"--gpus-per-run lower"):
        parallel_map(device, range(2), Path(), processes=2, on_gpus=True)


def test_a_folder_that_a_machine_does_not_see(cluster, tmp_path):
    """All machines of this cluster are this one, so a folder of this process stands for a local one."""
    opened = os.open(tmp_path, os.O_RDONLY)
    own = f"/proc/self/fd/{os.dup2(opened, 900)}"
    try:
        for folders, reads in (([Path(own)], []), ([], [own])):
            with (
                pytest.raises(UserError, match=rf"does not see {own}: run_dir, data\.dir, sources, models"),
                Engine(cluster.address).serving(folders, reads),
            ):
                pass
    finally:
        os.close(opened)
        os.close(900)
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_is_not_there():
    with (
        pytest.raises(UserError, match="start one with `ray start --head`"),
        Engine("127.0.0.1:9").serving([]),
    ):
        pass


def test_another_server_at_the_address():
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        begun = time.monotonic()
        with pytest.raises(UserError, match="cannot connect to a cluster"), Engine(address).serving([]):
            pass
    assert time.monotonic() - begun < TIMEOUT  # by itself, Ray tries for a quarter of an hour


PROGRAM = """
import sys, time
from pathlib import Path
from clm_detour.utils.errors import exit_on_user_error
from clm_detour.utils.parallel import Engine, parallel_map
from clm_detour.utils.signals import requeue_on_signals

def sleep(folder, task, worker):
    (folder / f"task-{task}").touch()
    time.sleep(600)

if __name__ == "__main__":
    with exit_on_user_error(), requeue_on_signals(), Engine(sys.argv[2]).serving([]):
        parallel_map(sleep, range(3), Path(sys.argv[1]), processes=3)
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGKILL, -9)]
)
def test_tasks_end_with_their_driver(cluster, tmp_path, number, code):
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [sys.executable, str(tmp_path / "program.py"), str(tmp_path), cluster.address]
    with open(tmp_path / "log", "w") as log:
        driver = subprocess.Popen(words, stdout=log, stderr=log)
    wait_until(lambda: (tmp_path / "task-0").exists() or driver.poll() is not None)
    driver.send_signal(number)
    assert driver.wait(TIMEOUT) == code, (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    with Engine(cluster.address).serving([]):  # the only CPU is free again
        assert parallel_map(device_free, [1], processes=1) == [1]


def device_free(common: object, task: int, worker: Worker) -> int:
    return task

"""A Ray cluster: connecting to it, checking its machines, and dividing its CPUs and GPUs among tasks."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clm_detour.utils.environment import VERSION
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.files import atomic_write
from clm_detour.utils.signals import handlers_kept

CONNECT_SECONDS = 10.0
ONE_ATTEMPT = ("RAY_gcs_server_port_wait_time_s", "1")  # of 40 s, at an address where another server answers
CHECK_SECONDS = 120.0  # for a node to start a worker process and answer


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, with the CPUs and GPUs that it has lent to Ray."""

    id: str
    name: str
    cpus: int
    gpus: float


class Board:
    """An actor that keeps the amounts of the tasks that are running, by call and number."""

    def __init__(self) -> None:
        self.amounts: dict[str, dict[int, list[int]]] = {}

    def set(self, call: str, number: int, amounts: list[int]) -> None:
        """Keep the amounts of a task; a task that is done again replaces those of its first attempt."""
        self.amounts.setdefault(call, {})[number] = amounts

    def read(self, call: str) -> dict[int, list[int]]:
        """Return the amounts of the tasks of a call."""
        return self.amounts.get(call, {})

    def forget(self, call: str) -> None:
        """Delete the amounts of a call."""
        self.amounts.pop(call, None)


class Cluster:
    """The connection of this process to a cluster.

    Args:
        gpus_per_run: Number of GPUs for each task that uses them; None for one, if the cluster has any.

    Attributes:
        cores: Number of CPUs of all machines.
        board: Handle of the `Board`, which runs on this machine and so ends with this process.
    """

    def __init__(self, gpus_per_run: float | None):
        self.gpus_per_run = gpus_per_run
        self.cores = max(1, sum(node.cpus for node in live_nodes()))
        here = on_node(ray.get_runtime_context().get_node_id())
        self.board = ray.remote(num_cpus=0, max_restarts=-1)(Board).options(**here).remote()
        self.thread = ThreadPoolExecutor(1)

    def ask(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a function of Ray that waits, in another thread.

        Signal handlers run in the main thread only, and Ray would replace what they raise by an exit with
        code 1.
        """
        return self.thread.submit(function, *arguments, **options).result()

    def check(self, folders: Sequence[Path], reads: Sequence[str | Path]) -> None:
        """Check that every machine can do the work.

        A task on each machine reads a file that this process has just written to each of the folders.

        Args:
            folders: Folders in which tasks write. They are made if needed.
            reads: Files and folders that tasks read. Those that do not exist here are not checked.

        Raises:
            UserError: If a machine has another version of this library or none, does not have the current
                folder, or does not see a folder or file.
        """
        token = f".seen-by-all-nodes-{secrets.token_hex(8)}"
        written = [folder / token for folder in folders]
        try:
            for file in written:
                with atomic_write(file):
                    pass
            files = [*written, *(Path(path) for path in reads if os.path.exists(path))]
            look = ray.remote(num_cpus=0, max_retries=0)(unseen)
            asked = [
                (node.name, look.options(**on_node(node.id)).remote(os.getcwd(), files))
                for node in live_nodes()
            ]
            for name, answer in asked:
                self.ask(check_answer, name, answer)
        finally:
            for file in written:
                with suppress(OSError):
                    file.unlink()

    def size_of_task(self, at_a_time: int, on_gpus: bool) -> tuple[int, float]:
        """Return the number of CPUs and of GPUs for each of several tasks that run at the same time.

        Tasks get as many CPUs as allow so many of them to run, so a few tasks use all cores, too.

        Raises:
            UserError: If no machine has the CPUs or GPUs for one task.
        """
        nodes = live_nodes()
        gpus = 0.0
        if on_gpus:
            gpus = self.gpus_per_run or float(any(node.gpus for node in nodes))
        most = places(nodes, 1, gpus)
        if not most and gpus:
            raise UserError(
                f"A run takes {gpus:g} GPUs, but no machine of the cluster has so many and a CPU "
                f"({described(nodes)}); set --gpus-per-run lower."
            )
        if not most:
            raise UserError(f"No machine of the cluster has a CPU for a task ({described(nodes)}).")
        wanted = min(at_a_time, most)
        sizes = range(max(node.cpus for node in nodes), 0, -1)
        return next(cpus for cpus in sizes if places(nodes, cpus, gpus) >= wanted), gpus


@contextmanager
def connected(address: str, gpus_per_run: float | None) -> Iterator[Cluster]:
    """Connect this process to a cluster for the block. A connection that exists is used and kept.

    Raises:
        UserError: If there is no cluster at the address, or it runs another version of Python or Ray.
    """
    ours = not ray.is_initialized()
    if ours:
        try:
            reach(address)
            os.environ.setdefault(*ONE_ATTEMPT)
            with handlers_kept():  # Ray replaces that of SIGTERM
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"Ray cannot connect to a cluster at address {address} ({on_one_line(error)}); start one "
                "with `ray start --head` and `ray start --address=HOST:6379`, and run the command on one of "
                "its machines."
            ) from error
    cluster = Cluster(gpus_per_run)
    try:
        yield cluster
    finally:
        cluster.thread.shutdown()
        if ours:
            ray.shutdown()


def reach(address: str) -> None:
    """Raise OSError if nothing answers at an address like `HOST:6379`. Ray itself would try for minutes."""
    address = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def live_nodes() -> list[Node]:
    """Return the machines of the cluster that are alive."""
    return [
        Node(
            node["NodeID"],
            node["NodeManagerHostname"],
            int(node["Resources"].get("CPU", 0)),
            node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def on_node(id: str) -> dict[str, Any]:
    """Return the options of a task or actor that runs on this machine and on no other."""
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(id, soft=False)}


def places(nodes: Sequence[Node], cpus: int, gpus: float) -> int:
    """Return how many tasks of this size run at the same time."""
    return sum(min(node.cpus // cpus, int(node.gpus / gpus + 1e-9) if gpus else node.cpus) for node in nodes)


def described(nodes: Sequence[Node]) -> str:
    """Return the machines with their CPUs and GPUs in words."""
    return ", ".join(f"{node.name}: {node.cpus} CPUs, {node.gpus:g} GPUs" for node in nodes)


def unseen(folder: str, files: Sequence[Path]) -> tuple[str, str | None]:
    """Return the version of this library on a machine, and the first of its files that it does not see.

    It is the current folder of the driver if that does not exist.
    """
    try:
        os.chdir(folder)
    except OSError:
        return VERSION, folder
    return VERSION, next((str(file) for file in files if not file.exists()), None)


def check_answer(name: str, answer: Any) -> None:
    """Check what `unseen` has found on a machine.

    Raises:
        UserError: If it has another version, does not see a file, or did not answer.
    """
    try:
        version, missing = ray.get(answer, timeout=CHECK_SECONDS)
    except TaskUnschedulableError:
        return  # it has just left the cluster
    except (RayError, RuntimeError, ImportError) as error:
        reason = on_one_line(error).rpartition(": ")[2][:200]
        raise UserError(
            f"The machine {name} of the cluster cannot run tasks ({reason}): make sure that it is alive and "
            f"has clm-detour {VERSION} in the environment in which `ray start` runs."
        ) from error
    if version != VERSION:
        raise UserError(
            f"The machine {name} of the cluster has clm-detour {version}, and this one {VERSION}: install "
            "the same release on all of them."
        )
    if missing is not None:
        path = missing.rpartition("/.seen-by")[0] or missing
        raise UserError(
            f"The machine {name} of the cluster does not see {path}: "
            "run_dir, data.dir, sources, models and the current folder must be on storage that all machines "
            "share."
        )

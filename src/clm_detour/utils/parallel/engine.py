"""The choice of where tasks run, which a command makes once: this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import one_of

if TYPE_CHECKING:  # Ray may be missing
    from clm_detour.utils.parallel.ray_cluster import Cluster

ENGINES = ("local", "ray")
_cluster: ContextVar[Cluster | None] = ContextVar("cluster", default=None)


@dataclass(frozen=True)
class Engine:
    """Where the tasks of `parallel_map` run.

    Args:
        address: Address of a Ray cluster, or `auto` for the one that this machine is part of. None: tasks run
            in processes of this machine.
        gpus_per_run: Number of GPUs that a task takes which uses them: a fraction, or an integer. None: one,
            if the cluster has any.
    """

    address: str | None = None
    gpus_per_run: float | None = None

    @classmethod
    def chosen(cls, name: str, address: str | None = None, gpus_per_run: float | None = None) -> Engine:
        """Return the engine of this name, `local` or `ray`.

        Raises:
            UserError: If there is no such engine, or an option does not fit it.
        """
        one_of(name, ENGINES, "--engine")
        if name == "local":
            if address is not None or gpus_per_run is not None:
                raise UserError("--address and --gpus-per-run need --engine ray.")
            return LOCAL
        if gpus_per_run is not None and (gpus_per_run <= 0 or (gpus_per_run > 1 and gpus_per_run % 1)):
            raise UserError(
                f"--gpus-per-run {gpus_per_run:g}: give a fraction of a GPU like 0.5, or a number of GPUs."
            )
        return cls(address or "auto", gpus_per_run)

    @contextmanager
    def serving(self, folders: Sequence[Path], reads: Sequence[str | Path] = ()) -> Iterator[None]:
        """Let `parallel_map` run its tasks on this engine within the block.

        On a cluster this connects to it, and checks first that each of its machines can do the work.

        Args:
            folders: Folders in which tasks write. They are made if needed.
            reads: Files and folders that tasks read. Those that do not exist here are not checked.

        Raises:
            UserError: If Ray or the cluster is missing, or if one of its machines has another version of this
                library, or does not see a folder or file.
        """
        if self.address is None:
            yield
            return
        try:
            from clm_detour.utils.parallel.ray_cluster import connected
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("ray"):
                raise
            raise UserError("--engine ray needs Ray: pip install 'clm-detour[ray]'.") from None
        with connected(self.address, self.gpus_per_run) as cluster:
            cluster.check(folders, reads)
            before = _cluster.set(cluster)
            try:
                yield
            finally:
                _cluster.reset(before)


LOCAL = Engine()


def current_cluster() -> Cluster | None:
    """Return the cluster of the engine that serves now, or None for this machine."""
    return _cluster.get()

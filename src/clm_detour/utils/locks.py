"""Let one process at a time do some work. A lock ends with its process, however that ends.

A lock is a file that is locked by `flock`. It holds between machines where the file system passes locks on,
as NFS does unless it is mounted with `nolock` or `local_lock`, and Lustre if it is mounted with `flock`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from clm_detour.utils.files import writable
from clm_detour.utils.progress import console, warn

POLL_SECONDS = 1.0


@contextmanager
def exclusive(folder: Path, other: str) -> Iterator[None]:
    """Lock a folder for the block, and wait first for a process that holds it. The folder is made if needed.

    Where the file system has no locks, a warning is printed and the block runs without one.

    Args:
        folder: The folder to lock.
        other: The other process and what it does, for the line that is printed while waiting.

    Raises:
        UserError: If the folder cannot be written.
    """
    with locked(folder / ".lock", f"{other} in {folder}"):
        yield


@contextmanager
def locked(path: Path, other: str) -> Iterator[None]:
    """Lock a file for the block as `exclusive` locks a folder. The file is made if needed."""
    lock = lock_of(path)
    try:
        if not take(lock, path):
            console.print(f"{other}; waiting for it to end.", soft_wrap=True)
            lock.acquire(poll_interval=POLL_SECONDS)
        yield
    finally:
        with suppress(OSError):
            lock.release()


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Lock a file for the block unless another process holds it. Yield whether this process may work.

    Where the file system has no locks, a warning is printed and this process may work.
    """
    lock = lock_of(path)
    try:
        yield take(lock, path)
    finally:
        with suppress(OSError):
            lock.release()


def lock_of(path: Path) -> FileLock:
    """Return the lock of a file, which is made if needed."""
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return FileLock(path, fallback_to_soft=False)


def take(lock: FileLock, path: Path) -> bool:
    """Lock a file if it is free. Return False if another process holds it."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    except OSError as error:  # Lustre, for one, is often mounted without locks
        warn(f"{path} cannot be locked ({error.strerror}): make sure that no other process works there.")
    return True

"""Let one process at a time work in a folder. A lock ends with its process, however that ends."""

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

    path = folder / ".lock"
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
    lock = FileLock(path, fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            console.print(f"{other} in {folder}; waiting for it to end.", soft_wrap=True)
            lock.acquire(poll_interval=POLL_SECONDS)
    except OSError as error:  # Lustre, for one, is often mounted without locks
        warn(f"{path} cannot be locked ({error.strerror}): make sure that no other process works there.")
    try:
        yield
    finally:
        with suppress(OSError):
            lock.release()

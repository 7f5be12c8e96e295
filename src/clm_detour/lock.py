"""One process at a time works in a folder; the lock ends with its process, however that ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from clm_detour.files import writable
from clm_detour.progress import console


@contextmanager
def alone(folder: Path, other: str) -> Iterator[None]:
    """Hold `folder`, making it if need be, once whoever holds it has ended.

    Args:
        other: who that is and what it does, for the line that is printed while waiting.

    Raises:
        UserError: the folder cannot be written.
    """
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "wb")  # noqa: SIM115
    with lock:
        take(lock, f"{other} in {folder}; waiting for it to end.")
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)  # worker processes may have inherited the file


def take(lock: IO[bytes], waiting: str) -> None:
    """Lock the file, now or when it is free."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        console.print(waiting, soft_wrap=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:  # Lustre, for one, is often mounted without locks
        console.print(
            f"[yellow]{lock.name} cannot be locked ({error.strerror}): see to it that nothing else works there.[/yellow]",
            soft_wrap=True,
        )

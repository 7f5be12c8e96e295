"""One process at a time works in a folder; the lock ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from clm_detour.utils.files import writable
from clm_detour.utils.progress import console, warn

ROUND = 1.0  # seconds


@contextmanager
def alone(folder: Path, other: str, meanwhile: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold `folder`, making it if need be, once whoever holds it has ended.

    Args:
        other: who that is and what it does, for the line that is printed while waiting.
        meanwhile: called every `ROUND` while waiting.

    Raises:
        UserError: the folder cannot be written.
    """
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "wb")  # noqa: SIM115
    with lock:
        take(lock, f"{other} in {folder}; waiting for it to end.", meanwhile)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)  # worker processes may have inherited the file


def take(lock: IO[bytes], waiting: str, meanwhile: Callable[[], None]) -> None:
    """Lock the file, now or when it is free."""
    if taken(lock):
        return
    console.print(waiting, soft_wrap=True)
    while not taken(lock):
        meanwhile()
        time.sleep(ROUND)


def taken(lock: IO[bytes]) -> bool:
    """Lock the file unless another holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # Lustre, for one, is often mounted without locks
        warn(f"{lock.name} cannot be locked ({error.strerror}): see to it that nothing else works there.")
    return True

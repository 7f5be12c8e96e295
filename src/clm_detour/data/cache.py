"""A cache of remote files: each is downloaded once for all processes, verified, and their total size is
limited.

A copy is named by its checksum, so runs share equal files. A copy has a shared lock as long as a file or a
memory map of it is open; the system releases the lock when the process ends, however it ends. To make room,
copies that nobody has locked are deleted, the least recently opened first. A download in progress is
`CHECKSUM.part`, locked by the process that downloads it; other processes wait for that lock.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec

from clm_detour.utils.errors import UserError
from clm_detour.utils.files import writable

BLOCK = 2**22
ATTEMPTS = 3  # a store may fail for a moment; to resume a run would cost more than to ask again
RECOPY = "copy it there again from where it was prepared"


def is_remote(location: str) -> bool:
    """Return whether a location is a URL. `file://` counts as one: it stands for a network disk worth
    caching.
    """
    return "://" in location


def filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Raises:
        UserError: If the protocol is unknown or its library is not installed.
    """
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url} cannot be reached: {error}.") from error


@dataclass(frozen=True)
class ShardCache:
    """A folder of copies that belongs to one user on one machine.

    Args:
        limit: Largest total size of the files in it, in bytes, downloads in progress included.
    """

    folder: Path
    limit: int

    def open(self, url: str, size: int, checksum: str) -> IO[bytes]:
        """Open the copy of the file at `url`, downloading it first if necessary. It is not evicted while open
        or mapped.

        Raises:
            UserError: If the file cannot be downloaded, does not match `checksum`, or there is no room for
                it.
        """
        copy = self.folder / checksum
        with writable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            while (file := open_locked(copy)) is None:
                self._fetch(url, size, checksum)
            os.utime(copy)
        return file

    def _fetch(self, url: str, size: int, checksum: str) -> None:
        """Download a file, unless another process does."""
        path = self.folder / f"{checksum}.part"
        part = self._claim(url, size, checksum, path)
        if part is None:
            return
        with part:
            try:
                if download(url, part) != checksum:
                    raise UserError(f"{url} is damaged (its checksum does not match the index): {RECOPY}.")
                with self._exclusive():
                    os.replace(path, self.folder / checksum)
            except BaseException:
                with self._exclusive():
                    path.unlink(missing_ok=True)
                raise

    def _claim(self, url: str, size: int, checksum: str, path: Path) -> IO[bytes] | None:
        """Return the locked file to download into, or None once another process has downloaded it."""
        with self._exclusive():
            if (self.folder / checksum).exists():
                return None
            part = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
            if try_lock(part):
                try:
                    self._make_room(url, size, keep=path)
                    os.ftruncate(part.fileno(), size)  # a download in progress counts with its full size
                except BaseException:
                    path.unlink()
                    part.close()
                    raise
                return part
        with part:
            fcntl.flock(part, fcntl.LOCK_SH)  # granted when the download has ended
        return None

    def _make_room(self, url: str, size: int, keep: Path) -> None:
        files = [path for path in self.folder.iterdir() if path != keep and path.name != ".lock"]
        stats = sorted((stat.st_mtime, stat.st_size, path) for path in files if (stat := path.stat()))
        total = sum(length for _, length, _ in stats)
        for _, length, path in stats:
            if total + size <= self.limit:
                return
            with open(path, "rb") as file:
                if try_lock(file):
                    path.unlink()
                    total -= length
        if total + size > self.limit:
            raise UserError(
                f"There is no room for {url} in {self.folder}: {total / 1e9:.3g} GB are in use and "
                f"data.cache_limit is {self.limit / 1e9:.3g} GB; raise it."
            )

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Let one process at a time add and delete files."""
        with open(self.folder / ".lock", "wb") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield


def open_locked(path: Path) -> IO[bytes] | None:
    """Open a copy and lock it against eviction. Return None if it does not exist (any more)."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    if is_at(file, path):
        return file
    file.close()
    return None


def try_lock(file: IO[bytes]) -> bool:
    """Lock a file exclusively and return True, or return False if another process holds a lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(file: IO[bytes], path: Path) -> bool:
    """Return whether `path` is still the name of this open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def download(url: str, target: IO[bytes]) -> str:
    """Write the content of `url` to an open file. Return its checksum."""
    fs, name = filesystem(url)
    for attempt in range(ATTEMPTS):
        target.seek(0)
        digest = hashlib.blake2b(digest_size=16)
        try:
            with fs.open(name, "rb") as remote:
                while block := remote.read(BLOCK):
                    digest.update(block)
                    target.write(block)
            target.flush()
            return digest.hexdigest()
        except FileNotFoundError:
            raise UserError(f"{url} is missing: {RECOPY}.") from None
        except Exception as error:  # every store's library has its own exceptions
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            if attempt + 1 == ATTEMPTS:
                raise UserError(f"{url} cannot be read: {error}.") from error
            time.sleep(attempt + 1)
    raise AssertionError

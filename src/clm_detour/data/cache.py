"""Local copies of remote files: fetched once for all processes, verified, and no larger in all than a limit.

A copy's name is its checksum, so runs share what is alike. A copy is locked (shared) as long as a file or a memory map of it is
open: the system takes the lock away when the process ends, however it ends. What makes room takes only what it can lock for itself,
the least recently opened first. A file under way is `CHECKSUM.part`, locked by the one that fetches it; the others wait for that lock.
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
ATTEMPTS = 3  # a store that fails now and then is asked again; resuming a run would cost more
RECOPY = "copy it there again from where it was prepared"


def is_remote(location: str) -> bool:
    """Whether a location is a URL and not a path. `file://` counts: it stands for a network disk worth caching."""
    return "://" in location


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        UserError: its protocol is not known or its library not installed.
    """
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url} cannot be reached: {error}.") from error


@dataclass(frozen=True)
class ShardCache:
    """A folder of copies, of one user on one machine.

    Args:
        limit: bytes of all files in it, those under way included.
    """

    folder: Path
    limit: int

    def open(self, url: str, size: int, checksum: str) -> IO[bytes]:
        """Open the copy of the file at `url`, fetching it if it is not here. While it is open or mapped it is not evicted.

        Raises:
            UserError: it cannot be fetched, is not what `checksum` says, or there is no room for it.
        """
        copy = self.folder / checksum
        with writable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            while (file := open_locked(copy)) is None:
                self._fetch(url, size, checksum)
            os.utime(copy)
        return file

    def _fetch(self, url: str, size: int, checksum: str) -> None:
        """Fetch a file, unless another process does."""
        path = self.folder / f"{checksum}.part"
        part = self._claim(url, size, checksum, path)
        if part is None:
            return
        with part:
            try:
                if download(url, part) != checksum:
                    raise UserError(f"{url} is damaged (its checksum does not match the index): {RECOPY}.")
                with self._alone():
                    os.replace(path, self.folder / checksum)
            except BaseException:
                with self._alone():
                    path.unlink(missing_ok=True)
                raise

    def _claim(self, url: str, size: int, checksum: str, path: Path) -> IO[bytes] | None:
        """The locked file to fill, or None once another process has filled it."""
        with self._alone():
            if (self.folder / checksum).exists():
                return None
            part = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
            if try_lock(part):
                try:
                    self._make_room(url, size, keep=path)
                    os.ftruncate(part.fileno(), size)  # what is under way counts whole
                except BaseException:
                    path.unlink()
                    part.close()
                    raise
                return part
        with part:
            fcntl.flock(part, fcntl.LOCK_SH)  # granted when the one that fetches it is done
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
                f"There is no room for {url} in {self.folder}: {total / 1e9:.3g} GB are in use and data.cache_limit is "
                f"{self.limit / 1e9:.3g} GB; raise it."
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time changes which names there are."""
        with open(self.folder / ".lock", "wb") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield


def open_locked(path: Path) -> IO[bytes] | None:
    """Open a copy and lock it against eviction; None if it is not here (any more)."""
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
    """Lock a file for oneself alone, unless somebody else holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(file: IO[bytes], path: Path) -> bool:
    """Whether `path` is still the name of this open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def download(url: str, target: IO[bytes]) -> str:
    """Write the content of `url` to an open file; returns its checksum."""
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
        except Exception as error:  # every store's library has its own kinds
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            if attempt + 1 == ATTEMPTS:
                raise UserError(f"{url} cannot be read: {error}.") from error
            time.sleep(attempt + 1)
    raise AssertionError

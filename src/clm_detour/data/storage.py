"""The places of prepared data: a folder on this machine, or a URL that fsspec can open, read through the
cache.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clm_detour.data.cache import RECOPY, ShardCache, download, filesystem, is_remote
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import file_checksum, read_json

REMEDY = "delete the folder and run `clm-detour prepare` again"


@dataclass(frozen=True)
class LocalFolder:
    """A folder on this machine, whose files are memory-mapped in place."""

    path: Path
    remedy = REMEDY

    def __str__(self) -> str:
        return str(self.path)

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each file, or nothing if there is no folder."""
        if not self.path.is_dir():
            return {}
        with os.scandir(self.path) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}

    def read_json(self, name: str) -> Any:
        """Return the content of a small JSON file."""
        return read_json(self.path / name)

    def open(self, name: str, size: int, checksum: str) -> IO[bytes]:
        """Open a file for reading or mapping."""
        return open(self.path / name, "rb")

    def checksum(self, name: str) -> str:
        """Return the checksum of a whole file, as `file_checksum`."""
        return file_checksum(self.path / name)


@dataclass(frozen=True)
class RemoteFolder:
    """A folder at a URL, whose files are memory-mapped in the cache."""

    url: str
    cache: ShardCache

    @property
    def remedy(self) -> str:
        """Advice about a file that is missing or damaged."""
        return f"{RECOPY}, and delete the copies in {self.cache.folder}"

    def __str__(self) -> str:
        return self.url

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each file, or nothing if there is no folder."""
        fs, path = filesystem(self.url)
        try:
            entries = fs.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:  # every store's library has its own exceptions
            raise UserError(f"{self.url} cannot be listed: {error}.") from error
        return {
            entry["name"].rpartition("/")[2]: entry["size"] for entry in entries if entry["type"] == "file"
        }

    def read_json(self, name: str) -> Any:
        """Return the content of a small JSON file."""
        content = io.BytesIO()
        download(self._url_of(name), content)
        try:
            return json.loads(content.getvalue())
        except ValueError as error:
            raise UserError(f"{self._url_of(name)} is not valid JSON ({error}): {RECOPY}.") from error

    def open(self, name: str, size: int, checksum: str) -> IO[bytes]:
        """Open the copy in the cache for reading or mapping. The copy is kept as long as it is mapped."""
        return self.cache.open(self._url_of(name), size, checksum)

    def checksum(self, name: str) -> str:
        """Return the checksum of a whole file, which is read without keeping it."""
        with open(os.devnull, "wb") as nowhere:
            return download(self._url_of(name), nowhere)

    def _url_of(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"


Folder = LocalFolder | RemoteFolder
Location = str | Path | Folder


def folder_at(location: Location, cache: ShardCache | None = None) -> Folder:
    """Return the folder at a path or URL.

    Raises:
        UserError: If it is a URL and there is no cache.
    """
    if isinstance(location, LocalFolder | RemoteFolder):
        return location
    if not is_remote(str(location)):
        return LocalFolder(Path(location))
    if cache is None:
        raise UserError(
            f"{location} is remote: set data.cache_dir to a folder on this machine for its copies."
        )
    return RemoteFolder(str(location), cache)


def check_size(folder: Folder, sizes: Mapping[str, int], name: str, expected: int) -> None:
    """Check that a file is there and has `expected` bytes.

    Args:
        sizes: Sizes of all files in `folder`.

    Raises:
        UserError: If the file is missing or has another size.
    """
    if name not in sizes:
        raise UserError(f"{folder}/{name} is missing: {folder.remedy}.")
    size = sizes[name]
    if size != expected:
        state = "truncated" if size < expected else "longer than what was written"
        raise UserError(f"{folder}/{name} is {state} ({size:,} bytes, not {expected:,}): {folder.remedy}.")


def check_content(folder: Folder, name: str, expected: str) -> None:
    """Check that a file has the checksum `expected`.

    Raises:
        UserError: If the checksum differs.
    """
    if folder.checksum(name) != expected:
        raise UserError(
            f"{folder}/{name} is damaged (its checksum does not match the index): {folder.remedy}."
        )

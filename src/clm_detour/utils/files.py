"""Write files and folders atomically, and read and write JSON.

A file is written under a temporary name in its own folder, flushed to the disk and renamed. A process that is
killed at any moment leaves either the old file or the new one. Folders are written in the same way.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from clm_detour.utils.errors import UserError

HALF_WRITTEN = ".*.tmp*"  # matches the temporary names of this module


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn an OSError in the block, which writes `path`, into a UserError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"Cannot write {path}: {reason}. Free some space or choose another folder."
        ) from error


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`, and rename it to `path` if the block ends without an error.

    Raises:
        UserError: If the folder cannot be written or the disk is full.
    """
    path = Path(path)
    # Two machines may have processes of one number.
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}@{platform.node()}")
    try:
        with writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Make a temporary folder beside `path`, and rename it to `path` if the block ends without an error.

    Temporary folders of killed processes are removed first. A folder that is replaced is called `.<name>.old`
    until the new one has its name, and stays there if the process is killed in between.
    """
    path = Path(path)
    temporary, old = path.with_name(f".{path.name}.tmp{os.getpid()}"), path.with_name(f".{path.name}.old")
    try:
        with writable(path):
            for left in leftovers(path):
                shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.replace(path, old)
            os.replace(temporary, path)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)


def cache_folder() -> Path:
    """Return the folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "clm-detour")


def leftovers(path: Path) -> list[Path]:
    """Return the temporary folders for `path` whose process has ended, or has the number of this process."""
    found = {left: left.name.rpartition(".tmp")[2] for left in path.parent.glob(f".{escape(path.name)}.tmp*")}
    return [
        left
        for left, pid in found.items()
        if pid.isdecimal() and (int(pid) == os.getpid() or not lives(int(pid)))
    ]


def remove_half_written(folder: Path) -> None:
    """Delete temporary files of killed processes below a folder in which no other process writes."""
    with writable(folder):
        for left in list(folder.rglob(HALF_WRITTEN)):
            left.unlink(missing_ok=True)  # its process may be about to end


def lives(pid: int) -> bool:
    """Return whether this machine has such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def file_checksum(path: Path) -> str:
    """Return the BLAKE2b checksum (16 bytes, in hex) of a file's content; about 1 GB/s."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def finite(value: Any) -> Any:
    """Return `value` with None in place of numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file, or an empty list if there is no file.

    A line that is not valid JSON, as a killed process leaves it, is left out.
    """
    found: list[Any] = []
    with suppress(FileNotFoundError):
        for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]


def read_json(path: str | Path, remedy: str = "delete it and run the step again") -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        remedy: What the user should do if it cannot be read, for the error.

    Raises:
        UserError: If the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is missing.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {remedy}.") from error

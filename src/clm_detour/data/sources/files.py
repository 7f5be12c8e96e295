"""The files of a source, wherever fsspec can reach, and their content without its compression."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import IO, Any

import pyarrow as pa

from clm_detour.config.expressions.formats import FORMATS, SUFFIXES, compression_of, guess, known_suffixes
from clm_detour.data.cache import filesystem
from clm_detour.data.sources.records import Unit
from clm_detour.utils.errors import UserError, on_one_line

ANY = "any"
BUFFER_BYTES = 2**16  # a truncated file loses at most this much of its readable end


def list_files(path: str, format: str | None = None, split: str | None = None) -> list[str]:
    """Return the files of a source, sorted: absolute local paths, or URLs.

    Args:
        path: A file, a folder (every file in it with a known suffix) or a glob; also any fsspec URL. As in a
            shell, a glob matches a hidden file, or one in a hidden folder, only where a part of the glob
            begins with a dot too.
        format: Format of all files; without it their names decide. ANY for files that may have different
            formats.
        split: Split to take from a folder in which `datasets` saved several.

    Raises:
        UserError: If there is no file, or the files have different or unknown formats.
    """
    fs, root = filesystem(path)
    with readable(path):
        if fs.isfile(root):
            found = [root]
        elif fs.isdir(root):
            folder = split_folder(fs, root, path, split)
            found = saved_files(fs, folder) or files_of_folder(fs, path, folder, format)
        elif any(character in root for character in "*?["):
            found = sorted(name for name in fs.glob(root) if fs.isfile(name) and not is_hidden(name, root))
            if not found:
                raise UserError(f"No file matches {path}.")
        else:
            raise UserError(f"{path} does not exist.")
    if format is None:
        check_kinds(path, found)
    return [name if is_local(fs) else fs.unstrip_protocol(name) for name in found]


def is_hidden(name: str, pattern: str) -> bool:
    """Return whether a part of `name` begins with a dot that no part of `pattern` asks for."""
    dotted = [part for part in pattern.split("/") if part.startswith(".")]
    return any(
        part.startswith(".") and not any(fnmatchcase(part, asked) for asked in dotted)
        for part in name.split("/")
    )


def split_folder(fs: Any, root: str, path: str, split: str | None) -> str:
    """Return the folder of one split, if `datasets` saved several."""
    if not fs.isfile(f"{root}/dataset_dict.json"):
        return root
    splits = read_description(
        fs, f"{root}/dataset_dict.json", lambda value: [str(name) for name in value["splits"]]
    )
    if split is None and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        raise UserError(f"{path} holds the splits {', '.join(splits)}; choose one of them with split.")
    return f"{root}/{split}"


def saved_files(fs: Any, root: str) -> list[str]:
    """Return the files that `datasets` saved in a folder, in its order.

    Files that it cached there later are left out.
    """
    if not fs.isfile(f"{root}/state.json"):
        return []
    names = read_description(
        fs, f"{root}/state.json", lambda value: [file["filename"] for file in value["_data_files"]]
    )
    return [f"{root}/{name}" for name in names]


def read_description(fs: Any, file: str, look: Callable[[Any], list[str]]) -> list[str]:
    """Return part of a JSON file that `datasets` wrote."""
    try:
        return look(json.loads(fs.cat_file(file)))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is damaged ({type(error).__name__}: {on_one_line(error)}); save the dataset again."
        ) from error


def files_of_folder(fs: Any, path: str, root: str, format: str | None) -> list[str]:
    """Return the files in a folder with a known suffix, except hidden ones."""
    suffixes = FORMATS[format].suffixes if format in FORMATS else SUFFIXES
    names = [entry["name"] for entry in fs.ls(root, detail=True) if entry["type"] == "file"]
    found = sorted(name for name in names if name.endswith(suffixes) and "/." not in name[len(root) :])
    if not found:
        raise UserError(f"The folder {path} has no file of a known kind ({', '.join(suffixes)}).")
    return found


def check_kinds(path: str, files: list[str]) -> None:
    """Check that all files have the same known format, so that no README becomes a document.

    Raises:
        UserError: If they have not.
    """
    for name in files:
        if guess(name) is None:
            raise UserError(
                f"{name} is of an unknown kind: the suffix must be one of {known_suffixes()}, or say its "
                "format."
            )
    kinds = sorted({str(guess(name)) for name in files})
    if len(kinds) > 1:
        raise UserError(f"{path} has files of several kinds ({', '.join(kinds)}); say which with format.")


def file_stamp(file: str) -> dict[str, Any]:
    """Return path, size and modification time of a file, by which a replaced file is noticed."""
    fs, name = filesystem(file)
    with readable(file):
        info = fs.info(name)
    changed = next(
        (info[key] for key in ("mtime", "LastModified", "updated", "etag", "ETag") if key in info), None
    )
    return {
        "path": file,
        "size": info["size"],
        "mtime": changed if isinstance(changed, int | float) else str(changed),
    }


@contextmanager
def open_raw(file: str) -> Iterator[IO[bytes]]:
    """Open a file for reading its bytes, without decompressing them."""
    fs, name = filesystem(file)
    with readable(file), fs.open(name, "rb") as raw:
        yield raw


def unpacked(raw: IO[bytes], file: str) -> io.BufferedReader:
    """Return the content of an open file, decompressed if its name tells the compression.

    Python reads gzip, since Arrow takes the zeros that tapes and some stores write after the end for damage.
    Arrow reads zstandard, of any number of frames, and notices a missing end.
    """
    compression = compression_of(file)
    if compression is None:
        return io.BufferedReader(pa.PythonFile(raw, "r"), BUFFER_BYTES)
    if compression == "gzip":
        return io.BufferedReader(Unpacked(gzip.GzipFile(fileobj=raw).read1, file), BUFFER_BYTES)
    stream = pa.CompressedInputStream(pa.PythonFile(raw, "r"), compression)
    return io.BufferedReader(Unpacked(stream.read, file), BUFFER_BYTES)


class Unpacked(io.RawIOBase):
    """The content of a compressed file.

    Args:
        read: Function that returns the next bytes, at most as many as its argument.
        file: Name for messages.
    """

    def __init__(self, read: Callable[[int], bytes], file: str):
        self._read = read
        self._file = file

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with the next bytes. Return their number.

        Raises:
            OSError: If the file is cut short or damaged.
            UserError: If the file is intact, but cannot be decompressed here.
        """
        with unpacking(self._file):
            content = self._read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


@contextmanager
def unpacking(file: str) -> Iterator[None]:
    """Turn the libraries' errors about damage into an OSError without a number, and about a large window into
    a UserError.
    """
    try:
        yield
    except EOFError as error:
        raise OSError("Truncated compressed stream") from error
    except gzip.BadGzipFile as error:  # its message may quote two bytes
        raise OSError("not gzip, or a wrong checksum") from error
    except zlib.error as error:
        raise OSError(str(error)) from error
    except OSError as error:
        if "too much memory" not in str(error):
            raise
        raise UserError(
            f"{file} was compressed with a window of more than 128 MiB (zstd --long=28 or more), which "
            "cannot be decompressed here; compress it again: zstd -dc --long=31 OLD | zstd -o NEW."
        ) from error


def is_local(fs: Any) -> bool:
    """Return whether the names of a file system are paths of this machine."""
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn the operating system's refusal to read `path` into a UserError.

    Arrow reports damaged content as an OSError without a number, which is left to the reader.
    """
    try:
        yield
    except PermissionError as error:
        raise UserError(f"{path} may not be read: permission denied.") from error
    except OSError as error:
        if type(error) is OSError and error.errno is None:
            raise
        raise UserError(f"{path} cannot be read: {error.strerror or on_one_line(error)}.") from error


def whole_file(file: str, format: str) -> Unit:
    """Return the unit of a file that is read from its start to its end."""
    return Unit(file, format, file_stamp(file)["size"])

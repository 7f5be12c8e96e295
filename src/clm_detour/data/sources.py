"""Documents: text streamed from JSON lines and parquet, wherever fsspec can reach.

A source is a file, a folder or a glob. Its files are read one after another in sorted order, one document
at a time, so memory does not grow with the corpus. What is wrong with a record either stops the run with
one sentence that names the file and the place, or, when asked, skips the record and counts it by reason.
Nothing disappears uncounted, and no text of a document ever reaches a message.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import IO, Any, Literal

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from clm_detour.errors import UserError

OnError = Literal["stop", "skip"]
COMPRESSION = {
    ".jsonl": None,
    ".jsonl.gz": "gzip",
    ".jsonl.zst": "zstd",
    ".json.gz": "gzip",
    ".parquet": None,
}
SUFFIXES = tuple(COMPRESSION)
BUFFER_BYTES = 2**16  # a truncated file loses at most this much of its readable end
ROWS_PER_BATCH = 256


class BadRecord(Exception):
    """Something that cannot be read: `reason` is what it is counted as, the message says where it is."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def read_documents(
    path: str,
    text_field: str = "text",
    on_error: OnError = "stop",
    counts: Counter[str] | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Iterator[str]:
    """Stream the texts of a source.

    Args:
        path: a file, a folder (every file in it with a known suffix, sorted) or a glob; any fsspec URL.
        on_error: "stop" at the first bad record, or "skip" it and count it.
        counts: counts what was left out, by reason; documents of white space only are always left out.
        on_bytes: called now and then with the number of bytes of the files read since the last call.

    Raises:
        UserError: a missing or unreadable file, an unknown suffix, no document, or (with "stop") a bad one.
    """
    counts = Counter() if counts is None else counts
    found = False
    for file in list_files(path):
        empty_file = True
        for text in _read_file(file, text_field, on_bytes or (lambda _: None)):
            empty_file = False
            if isinstance(text, BadRecord):
                if on_error == "stop":
                    raise UserError(
                        f"{text}; repair it, or leave such records out with on_error: skip."
                    ) from text
                counts[text.reason] += 1
            elif not text or text.isspace():
                counts["empty"] += 1
            else:
                found = True
                yield text
        if empty_file:
            counts["empty file"] += 1
    if not found:
        left_out = ", ".join(f"{count} x {reason}" for reason, count in sorted(counts.items()))
        raise UserError(f"{path} holds no document ({left_out}).")


def list_files(path: str) -> list[str]:
    """The files of a source, sorted: absolute local paths, or URLs.

    Raises:
        UserError: nothing there, or a file whose suffix is not known.
    """
    fs, root = _filesystem(path)
    with _readable(path):
        if fs.isfile(root):
            found = [root]
        elif fs.isdir(root):
            names = [entry["name"] for entry in fs.ls(root, detail=True) if entry["type"] == "file"]
            found = sorted(
                name for name in names if name.endswith(SUFFIXES) and "/." not in name[len(root) :]
            )
            if not found:
                raise UserError(f"The folder {path} has no file of a known kind ({', '.join(SUFFIXES)}).")
        elif any(character in root for character in "*?["):
            found = sorted(name for name in fs.glob(root) if fs.isfile(name))
            if not found:
                raise UserError(f"No file matches {path}.")
        else:
            raise UserError(f"{path} does not exist.")
    for name in found:
        if not name.endswith(SUFFIXES):
            raise UserError(f"{name} is of an unknown kind: the suffix must be one of {', '.join(SUFFIXES)}.")
    return [name if _is_local(fs) else fs.unstrip_protocol(name) for name in found]


def file_stamp(file: str) -> dict[str, Any]:
    """Path, size and time of change of a file of `list_files`: enough to see that it has been replaced."""
    fs, name = _filesystem(file)
    with _readable(file):
        info = fs.info(name)
    changed = next(
        (info[key] for key in ("mtime", "LastModified", "updated", "etag", "ETag") if key in info), None
    )
    return {
        "path": file,
        "size": info["size"],
        "mtime": changed if isinstance(changed, int | float) else str(changed),
    }


def _read_file(file: str, text_field: str, on_bytes: Callable[[int], None]) -> Iterator[str | BadRecord]:
    fs, name = _filesystem(file)
    with _readable(file), fs.open(name, "rb") as raw:
        if name.endswith(".parquet"):
            yield from _read_parquet(file, raw, text_field, fs.size(name), on_bytes)
        else:
            suffix = next(suffix for suffix in SUFFIXES if name.endswith(suffix))
            yield from _read_json_lines(file, raw, COMPRESSION[suffix], text_field, on_bytes)


def _read_json_lines(
    file: str, raw: IO[bytes], compression: str | None, text_field: str, on_bytes: Callable[[int], None]
) -> Iterator[str | BadRecord]:
    # Arrow reads files of several members and notices a missing end, which zstandard passes over silently.
    stream = pa.PythonFile(raw, "r")
    if compression:
        stream = pa.CompressedInputStream(stream, compression)
    lines = io.BufferedReader(stream, BUFFER_BYTES)
    position = number = 0
    try:
        for number, line in enumerate(lines, start=1):
            if number % ROWS_PER_BATCH == 0:
                on_bytes(raw.tell() - position)
                position = raw.tell()
            if line.strip():
                yield _text_of_line(line, f"{file} line {number}", text_field)
    except OSError as error:
        if not compression or type(error) is not OSError or error.errno is not None:  # the disk, not the data
            raise
        yield BadRecord("damaged file", f"{file} is damaged after line {number} ({error})")
    on_bytes(raw.tell() - position)


def _text_of_line(line: bytes, place: str, text_field: str) -> str | BadRecord:
    try:
        record = json.loads(line.rstrip().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return BadRecord("not UTF-8", f"{place} is not valid UTF-8 (byte {error.start + 1} of the line)")
    except json.JSONDecodeError as error:
        return BadRecord("broken JSON", f"{place} is not valid JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError):
        return BadRecord("broken JSON", f"{place} is not valid JSON: a number too long or brackets too deep")
    if not isinstance(record, dict):
        return BadRecord("not an object", f"{place} is JSON, but not an object with a field '{text_field}'")
    if text_field not in record:
        return BadRecord("no text field", f"{place} {_missing_field(text_field, list(record))}")
    text = record[text_field]
    if not isinstance(text, str):
        return BadRecord(
            "text not a string", f"{place}: '{text_field}' is {type(text).__name__}, not a string"
        )
    try:
        text.encode()  # JSON may spell half a surrogate pair, which is no character
    except UnicodeEncodeError:
        return BadRecord("not Unicode", f"{place}: '{text_field}' has half a surrogate pair")
    return text


def _read_parquet(
    file: str, raw: IO[bytes], text_field: str, size: int, on_bytes: Callable[[int], None]
) -> Iterator[str | BadRecord]:
    row = 0
    try:
        table = pq.ParquetFile(raw)
        names, rows = table.schema_arrow.names, max(table.metadata.num_rows, 1)
        if text_field not in names:
            yield BadRecord("no text field", f"{file} {_missing_field(text_field, names)}")
            return
        if not _is_string(table.schema_arrow.field(text_field).type):
            kind = table.schema_arrow.field(text_field).type
            yield BadRecord("text not a string", f"{file}: '{text_field}' is {kind}, not a string")
            return
        for batch in table.iter_batches(ROWS_PER_BATCH, columns=[text_field]):
            column = batch.column(0)
            if isinstance(column, pa.DictionaryArray):
                column = column.dictionary_decode()
            for value in column.cast(pa.large_binary()).to_pylist():
                row += 1
                yield _text_of_bytes(value, f"{file} row {row}", text_field)
            on_bytes(size * row // rows - size * (row - len(batch)) // rows)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        yield BadRecord("damaged file", f"{file} is not a sound parquet file after row {row}")


def _text_of_bytes(value: bytes | None, place: str, text_field: str) -> str | BadRecord:
    if value is None:
        return BadRecord("text not a string", f"{place}: '{text_field}' is null, not a string")
    try:
        return value.decode()
    except UnicodeDecodeError:
        return BadRecord("not UTF-8", f"{place}: '{text_field}' is not valid UTF-8")


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _missing_field(text_field: str, names: list[str]) -> str:
    near = get_close_matches(text_field, names, n=1, cutoff=0.5)
    there = ", ".join(f"'{name[:40]}'" for name in names[:8]) or "none"
    return f"has no field '{text_field}'; its fields: {there}" + (
        f"; did you mean '{near[0][:40]}'?" if near else ""
    )


def _filesystem(path: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise UserError(f"{path} cannot be reached: {error}.") from error


def _is_local(fs: Any) -> bool:
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turn the operating system's refusal to read `path` into a sentence for people."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f"{path} may not be read: permission denied.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from error

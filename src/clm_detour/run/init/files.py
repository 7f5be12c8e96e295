"""Divide the files of a user into sources: files of one kind in one folder whose names differ in numbers."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clm_detour.config.expressions.formats import SUFFIXES, guess, known_suffixes
from clm_detour.config.schema import Source
from clm_detour.data.cache import filesystem, is_remote
from clm_detour.data.sources import list_files
from clm_detour.data.sources.files import ANY, readable
from clm_detour.utils.errors import UserError

MOST_OF_A_FOLDER = 8  # sources; files of more different names become a single one
LINES_SUFFIX = ".json"  # such a file is read as JSON lines, and refused if it is something else


def find_sources(paths: Sequence[str]) -> dict[str, Source]:
    """Return a source for each group of files, by name, with its path and its format if it needs one.

    Args:
        paths: Files, folders and globs, local or at a URL. A folder without files of a known kind stands for
            the folders in it.

    Raises:
        UserError: If there are none, or a file is of an unknown kind.
    """
    files: dict[str, str] = {}
    sources: list[Source] = []
    for path in paths:
        with readable(path):
            if (saved := saved_dataset(path)) is not None:
                sources.append(saved)
            else:
                files |= {file: kind_of(file) for file in expand(path)}
    groups: dict[tuple[str, str, str], list[str]] = {}
    for file, kind in files.items():
        folder, name = posixpath.split(file)
        # Each text file is usually one document; other files with different names are different corpora.
        shape = "" if kind == "text" else re.sub(r"\d+", "0", name)
        groups.setdefault((folder, kind, shape), []).append(file)
    for (_, kind, _), group in merged(groups).items():
        sources += sources_of(sorted(group), kind)
    return named(sources)


def saved_dataset(path: str) -> Source | None:
    """Return the source of a folder that `datasets` has saved, or None if the path is something else."""
    fs, root = filesystem(path)
    if fs.isfile(f"{root}/dataset_dict.json"):
        return Source(path=shortened(path), format="arrow", split="train")
    return Source(path=shortened(path), format="arrow") if fs.isfile(f"{root}/state.json") else None


def expand(path: str) -> list[str]:
    """Return the files that a path stands for."""
    fs, root = filesystem(path)
    if not fs.isdir(root):
        return list_files(path, ANY)
    try:
        return list_files(path, ANY)
    except UserError:
        json_lines = fs.glob(f"{root}/[!.]*{LINES_SUFFIX}")
        if json_lines:
            return [file for name in json_lines for file in list_files(beside(path, name), ANY)]
        folders = sorted(entry["name"] for entry in fs.ls(root, detail=True) if entry["type"] == "directory")
        visible = [name for name in folders if not posixpath.basename(name.rstrip("/")).startswith(".")]
        inner = [beside(path, name.rstrip("/")) for name in visible]
        found = [file for folder in inner for file in files_in(folder)]
        if not found:
            raise
        return found


def files_in(folder: str) -> list[str]:
    """Return the files of a known kind in a folder; none if there are none."""
    try:
        return list_files(folder, ANY)
    except UserError:
        return []


def beside(path: str, name: str) -> str:
    """Return the path of an entry of the folder `path`, given the entry's name in its file system."""
    return f"{path.rstrip('/')}/{posixpath.basename(name)}"


def kind_of(file: str) -> str:
    """Return the format of a file by its name.

    Raises:
        UserError: If the name does not tell.
    """
    kind = guess(file) or ("jsonl" if file.endswith(LINES_SUFFIX) else None)
    if kind is None:
        raise UserError(f"{file} is of an unknown kind: the suffix must be one of {known_suffixes()}.")
    return kind


def merged(groups: dict[tuple[str, str, str], list[str]]) -> dict[tuple[str, str, str], list[str]]:
    """Return groups in which a folder with files of many different names is a single one."""
    shapes: dict[tuple[str, str], int] = {}
    for folder, kind, _ in groups:
        shapes[folder, kind] = shapes.get((folder, kind), 0) + 1
    together: dict[tuple[str, str, str], list[str]] = {}
    for (folder, kind, shape), files in groups.items():
        kept = shape if shapes[folder, kind] <= MOST_OF_A_FOLDER else ""
        together.setdefault((folder, kind, kept), []).extend(files)
    return together


def sources_of(files: list[str], kind: str) -> list[Source]:
    """Return one source for files of one folder and kind, or, if no path names just these, one for each."""
    for source in candidates(files, kind):
        try:
            if list_files(source.path, source.format) == files:
                return [source]
        except UserError:  # other kinds of files are there too
            continue
    return [one_file(file) for file in files]


def candidates(files: list[str], kind: str) -> Iterator[Source]:
    """Yield sources that may hold exactly these files: the file, the folder, or a glob."""
    if len(files) == 1:
        yield one_file(files[0])
    folder, first = posixpath.split(files[0])
    needed: Any = None if guess(first) else kind
    given: Any = kind
    yield Source(path=shortened(folder))
    yield Source(path=shortened(folder), format=given)
    for pattern in (re.sub(r"\d+", "*", first), f"*{posixpath.splitext(first)[1]}"):
        yield Source(path=shortened(f"{folder}/{pattern}"), format=needed)


def one_file(file: str) -> Source:
    """Return the source of one file."""
    return Source(path=shortened(file), format=None if guess(file) else "jsonl")


def shortened(path: str) -> str:
    """Return a path relative to the current folder if it is inside it, and otherwise as it is."""
    if is_remote(path):
        return path
    absolute = os.path.abspath(os.path.expanduser(path))
    relative = os.path.relpath(absolute)
    return absolute if relative.startswith("..") else relative


def named(sources: Sequence[Source]) -> dict[str, Source]:
    """Return sources by different names that are made of their paths."""
    names: dict[str, Source] = {}
    for source in sources:
        name = name_of(source.path)
        kind = source.format or guess(source.path) or "text"
        folder = posixpath.basename(posixpath.dirname(source.path))
        longer = f"{name_of(folder)}-{name}" if folder else f"{name}-{kind}"
        choices = [name, longer, *(f"{name}-{number}" for number in range(2, len(sources) + 2))]
        names[next(each for each in choices if each not in names)] = source
    return names


def name_of(path: str) -> str:
    """Return a name for the source at a path: of its file or folder, without suffixes, numbers and globs."""
    folder, last = posixpath.split(path.rstrip("/"))
    last = Path.cwd().name if last == "." else last
    suffixes = sorted((*SUFFIXES, LINES_SUFFIX), key=len, reverse=True)
    suffix = next((each for each in suffixes if last.endswith(each)), "")
    name = re.sub(r"[^A-Za-z0-9_]+", "-", last.removesuffix(suffix).replace("*", " ")).strip("-_")
    return name or (name_of(folder) if folder else "texts")

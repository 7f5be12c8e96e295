"""The configs that come with the library, and how a config is found by its name or path.

A shipped config is named by its path below `clm_detour/configs`, like `quickstart` or `paper/cpt-en-large`.
Files in `cloud` are for other programs: they can be printed, but are no configs of this one.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import warn

CONFIGS = Path(__file__).parents[1] / "configs"
SUFFIX = ".yaml"
CLOUD = "cloud"
SENTENCE_END = re.compile(r"\.(?=\s|$)")


def shipped_configs() -> dict[str, Path]:
    """Return the file of each shipped config by its name."""
    return {name: file for name, file in shipped_files().items() if not name.startswith(f"{CLOUD}/")}


def shipped_files() -> dict[str, Path]:
    """Return each file that `clm-detour configs` lists and prints, by its name."""
    files = sorted(CONFIGS.rglob(f"*{SUFFIX}"))
    return {file.relative_to(CONFIGS).with_suffix("").as_posix(): file for file in files}


def find_config(name: str, extended_by: Path | None = None) -> Path:
    """Return the file of a config: an existing file, or else a shipped config with or without `.yaml`.

    A warning says which one is used if a file of the user and a shipped config have the same name.

    Args:
        name: Path of a file, or name of a shipped config.
        extended_by: File that extends the config. A path is relative to its folder, and otherwise to the
            current one.

    Raises:
        UserError: If there is neither.
    """
    folder = Path() if extended_by is None else extended_by.parent
    shipped = shipped_configs().get(name.removesuffix(SUFFIX))
    if is_file(own := folder / name):
        if shipped is not None and not own.samefile(shipped):
            warn(f"Using the file {own}; there is also a shipped config {name.removesuffix(SUFFIX)}.")
        return own
    if shipped is None:
        where = "" if extended_by is None else f", which {extended_by} extends"
        raise UserError(f"There is no config {name}{where}{remedy(name)}")
    if is_file(other := folder / f"{name}{SUFFIX}") and not other.samefile(shipped):
        warn(f"Using the shipped config {name}; write {name}{SUFFIX} to use the file {other}.")
    return shipped


def shipped_config(name: str) -> Path:
    """Return the file of a shipped config, or one for another program.

    Raises:
        UserError: If there is none of that name.
    """
    file = shipped_files().get(name.removesuffix(SUFFIX))
    if file is None:
        raise UserError(f"There is no shipped config {name}{remedy(name)}")
    return file


def opening(file: Path) -> str:
    """Return the first sentence of the comment with which a config begins, or "" if it has none."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.strip("# ") for line in lines[: first_without(lines, "#")])
    return SENTENCE_END.split(comment)[0]


def first_without(lines: list[str], start: str) -> int:
    """Return the number of lines that begin with `start`, up to the first one that does not."""
    return next((number for number, line in enumerate(lines) if not line.startswith(start)), len(lines))


def is_file(path: Path) -> bool:
    """Return whether a path is something to read, such as a file or a pipe."""
    return os.path.exists(path) and not path.is_dir()


def remedy(name: str) -> str:
    """Return the end of a sentence about a config that does not exist, with the nearest shipped names."""
    near = nearest_names(name.removeprefix("configs/").removesuffix(SUFFIX))
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return f"; {meant}`clm-detour configs` lists the shipped configs."


def nearest_names(word: str) -> list[str]:
    """Return at most three names of shipped configs that resemble a word as a whole or in their last part."""
    names: dict[str, str] = {}
    for name in shipped_configs():
        for label in (name, name.rpartition("/")[2]):
            names.setdefault(label, name)
    found = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    return list(dict.fromkeys(names[label] for label in found))

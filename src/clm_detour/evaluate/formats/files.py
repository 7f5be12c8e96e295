"""Finding the files of a split, and reading them as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from clm_detour.data.sources.files import is_hidden
from clm_detour.utils.errors import UserError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development"),
    "test": ("test", "testing"),
}
ASIDE = re.compile(r"(readme|licen[cs]e)\b", re.IGNORECASE)  # files that are no data
Pattern = str | tuple[str, ...]


def split_files(folder: Path, pattern: Pattern, split: str) -> list[Path]:
    """The files of a split, sorted: of the first glob, and the first name of the split, that finds some."""
    for glob in (pattern,) if isinstance(pattern, str) else pattern:
        for name in SPLIT_NAMES[split] if "{split}" in glob else ("",):
            paths = visible(folder, glob.replace("{split}", name))
            found = [path for path in paths if path.is_file() and not ASIDE.match(path.name)]
            if found:
                return found
    return []


def visible(folder: Path, pattern: str) -> list[Path]:
    """Return what matches a glob in `folder`, sorted, without hidden files and what lies in hidden folders."""
    return sorted(
        path for path in folder.glob(pattern) if not is_hidden(str(path.relative_to(folder)), pattern)
    )


def read_text(file: Path) -> str:
    """A whole file with its line ends as they are, since standoff annotations count their characters.

    Raises:
        UserError: it is not UTF-8, or cannot be read.
    """
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(f"{file} line {line} is not valid UTF-8; convert the file.") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error


def lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield each line without its end, and its place; no byte order mark. Lines end as Windows, Unix or old Macs end them.

    Raises:
        UserError: as `read_text`, or the file is empty.
    """
    text = read_text(file).removeprefix("\ufeff")
    if not text.strip():
        raise UserError(f"{file} is empty; get the data set again.")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        yield f"{file} line {number}", line

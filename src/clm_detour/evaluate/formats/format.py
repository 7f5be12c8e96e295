"""The parts that all formats share: examples, annotations, and finding and reading the files of a split."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator

from clm_detour.data.sources.files import is_hidden
from clm_detour.utils.errors import UserError

Fragments = tuple[tuple[int, int], ...]
Pattern = str | tuple[str, ...]

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development"),
    "test": ("test", "testing"),
}
NOT_DATA = re.compile(r"(readme|licen[cs]e)\b", re.IGNORECASE)


def parse_files(value: Any) -> Pattern | Mapping[str, Pattern]:
    """Return the value of `files` in the YAML of a task, with tuples for lists.

    Raises:
        ValueError: If it is neither a glob, nor a list of globs, nor one of these for each split.
    """
    if isinstance(value, Mapping):
        for split in value:
            if split not in SPLIT_NAMES:
                raise ValueError(f"{split!r} is not known; it can be {', '.join(SPLIT_NAMES)}.")
        return {split: parse_pattern(pattern) for split, pattern in value.items()}
    return parse_pattern(value)


def parse_pattern(value: Any) -> Pattern:
    """Return a glob, or a tuple of globs for a list of them."""
    if isinstance(value, str):
        return value
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{value!r} is neither a glob like '{{split}}.tsv' nor a list of globs.")
    return tuple(value)


Files = Annotated[Pattern | Mapping[str, Pattern], PlainValidator(parse_files)]


@dataclass(frozen=True)
class Annotation:
    """A labelled piece of text.

    Args:
        fragments: Characters [start, end) of each piece, in the order of the file.
        place: File and line, for messages.
        text: The annotated words as the file gives them, if it does.
    """

    label: str
    fragments: Fragments
    place: str
    text: str | None = None


@dataclass(frozen=True)
class Example:
    """A document as its file has it.

    Args:
        text: The text. It is empty for a row that is no document: the row is skipped, and the reasons in
            `left_out` are counted.
        place: File and line, for messages.
        words: Character spans of the words, if the format divides the text into words.
        left_out: A reason for each part of the file that the example lacks, like "annotations on empty
            words".
    """

    id: str
    text: str
    place: str
    words: tuple[tuple[int, int], ...] | None = None
    annotations: tuple[Annotation, ...] = ()
    labels: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def count_skipped(place: str, reasons: Sequence[str]) -> Iterator[Example]:
    """Yield an example without text that counts skipped parts of a file; yield nothing if there is no reason.

    Args:
        place: File, or file and line.
        reasons: A reason for each skipped part.
    """
    if reasons:
        yield Example(place, "", place, left_out=tuple(reasons))


@dataclass(frozen=True)
class Format(ABC):
    """A file format for annotated documents. The fields of a subclass are its keys in the YAML of a task.

    Args:
        files: Where the files of a split are in the folder of the data set: a glob, a list of globs (the
            first one that matches is used), or a glob or list for each split. `{split}` stands for any usual
            name of the split (`train`, `dev`, `devel`, ...).
    """

    files: Files

    def find(self, folder: Path, split: str) -> list[Path]:
        """Return the files of a split, sorted; an empty list if there are none."""
        return split_files(folder, self.pattern(split), split)

    def pattern(self, split: str) -> Pattern:
        """Return the globs of a split."""
        return self.files.get(split, ()) if isinstance(self.files, Mapping) else self.files

    @abstractmethod
    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """Yield the examples of a split that one file holds.

        Raises:
            UserError: If the file cannot be read. The message names the place and the reason.
        """


def split_files(folder: Path, pattern: Pattern, split: str) -> list[Path]:
    """Return the files that the first matching glob finds for the first matching name of a split, sorted."""
    for glob in (pattern,) if isinstance(pattern, str) else pattern:
        for name in SPLIT_NAMES[split] if "{split}" in glob else ("",):
            paths = matching_paths(folder, glob.replace("{split}", name))
            found = [path for path in paths if path.is_file() and not NOT_DATA.match(path.name)]
            if found:
                return found
    return []


def matching_paths(folder: Path, pattern: str) -> list[Path]:
    """Return the paths in `folder` that match a glob, sorted, without hidden files and folders."""
    return sorted(
        path for path in folder.glob(pattern) if not is_hidden(str(path.relative_to(folder)), pattern)
    )


def read_text(file: Path) -> str:
    """Return a whole file with its line ends unchanged, because standoff annotations count their characters.

    Raises:
        UserError: If the file is not UTF-8 or cannot be read.
    """
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(f"{file} line {line} is not valid UTF-8; convert the file.") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each line. Lines may end as on Windows, Unix or old Macs.

    Raises:
        UserError: If the file is empty, is not UTF-8 or cannot be read.
    """
    text = read_text(file).removeprefix("\ufeff")
    if not text.strip():
        raise UserError(f"{file} is empty; get the data set again.")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        yield f"{file} line {number}", line


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without the white space at its ends."""
    inside = text[start:end]
    return start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())

"""What every form gives: examples as they stand in the files, each piece with its place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clm_detour.evaluate.formats.files import Pattern, split_files

Fragments = tuple[tuple[int, int], ...]
Files = Pattern | Mapping[str, Pattern]


@dataclass(frozen=True)
class Annotation:
    """A labelled piece of text.

    Args:
        fragments: characters [start, end) of each of its pieces, in the file's order.
        place: file and line, for messages.
        text: the words that the file says are there, where it does.
    """

    label: str
    fragments: Fragments
    place: str
    text: str | None = None


@dataclass(frozen=True)
class Example:
    """A document as its file has it.

    Args:
        text: empty for a row that is no document; it is skipped, and counted by the reasons in `left_out`.
        words: where the form divides the text into words.
        left_out: what the file has and the example has not, one reason for each, like "annotations on empty words".
    """

    id: str
    text: str
    place: str
    words: tuple[tuple[int, int], ...] | None = None
    annotations: tuple[Annotation, ...] = ()
    labels: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def skipped(place: str, reasons: Sequence[str]) -> Iterator[Example]:
    """Yield an example without text, which counts what is in no document; nothing where there is no reason.

    Args:
        place: file, or file and line.
        reasons: one for each thing that is left out.
    """
    if reasons:
        yield Example(place, "", place, left_out=tuple(reasons))


@dataclass(frozen=True)
class Form(ABC):
    """A kind of file.

    Args:
        files: where the files of a split lie in the data set's folder: a glob with `{split}`, which stands for any usual
            name of it (`train`, `dev`, `devel`, ...), several globs, of which the first that finds something counts, or
            those of each split.
    """

    files: Files

    def find(self, folder: Path, split: str) -> list[Path]:
        """The files of a split, sorted; none where they are absent."""
        return split_files(folder, self.pattern(split), split)

    def pattern(self, split: str) -> Pattern:
        """Where they are looked for."""
        return self.files.get(split, ()) if isinstance(self.files, Mapping) else self.files

    @abstractmethod
    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """What one file holds of a split.

        Raises:
            UserError: it cannot be read; says where and why.
        """


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without the white space at its ends."""
    inside = text[start:end]
    return start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())

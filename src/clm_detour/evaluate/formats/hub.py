"""Datasets of the Hugging Face hub: a text and its labels in columns, or lists of words and tags.

A dataset is read at one commit, and none of its code is executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clm_detour.config.schema import Source
from clm_detour.data.sources.readers import READERS
from clm_detour.data.sources.records import Record
from clm_detour.evaluate.formats.conll import Row, parse_tag, tagged_sentence
from clm_detour.evaluate.formats.format import Example
from clm_detour.evaluate.formats.table import Table, cell, cell_text
from clm_detour.utils.errors import UserError


@dataclass(frozen=True)
class Hub(Table):
    """A dataset of the hub.

    Args:
        path: Id of the dataset, or a local copy.
        subset: Configuration of the dataset.
        revision: Branch, tag or commit. Without a network it must be a whole commit hash.
        splits: Names of the splits in the dataset, if they are not train, validation and test.
        words: Column with the list of a sentence's words; their tags are in the column `tags`.
        tag_names: Names of tags that are numbers.
    """

    path: str = field(kw_only=True)
    subset: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    words: str | None = None
    tags: str = "ner_tags"
    tag_names: tuple[str, ...] = ()

    def find(self, folder: Path, split: str) -> list[Path]:
        """Return one path that names the dataset and the split; the dataset is not in `folder`."""
        return [Path(self.path, split)]

    def rows(self, file: Path, split: str) -> Iterator[Record]:
        """Yield the records of a split."""
        name = self.splits.get(split, split)
        source = Source(
            path=self.path,
            format="hub",
            subset=self.subset,
            revision=self.revision,
            split=name,
            streaming=False,
        )
        for unit in READERS["hub"].units(self.path, "hub", source):
            for record in READERS["hub"].records(unit, source, None, lambda _: None):
                assert isinstance(record, Record)  # columns have types, so no record is broken
                yield record

    def example(self, record: Record, number: str) -> Example:
        """Return a row as an example."""
        if self.words is None:
            return super().example(record, number)
        words, given = cell(record, self.words), cell(record, self.tags)
        check_words(record.place, self.words, words, self.tags, given)
        tags = [self.tag_name(tag, record.place) for tag in given]
        rows = [
            Row(word.strip(), *parse_tag(tag, None, record.place), record.place)
            for word, tag in zip(words, tags, strict=True)
        ]
        id = self.id_of(record, number)
        return tagged_sentence(id, rows) if rows else Example(id, "", record.place)

    def tag_name(self, tag: Any, place: str) -> str:
        """Return the name of a tag, which may be a number."""
        if isinstance(tag, str):
            return tag.strip()
        number = cell_text(tag)
        if not number.isdecimal() or int(number) >= len(self.tag_names):
            raise UserError(
                f"{place}: the tag {number or 'null'} is none of {len(self.tag_names)} names; set "
                "`tag_names` to the names of 0, 1, 2, ..."
            )
        return self.tag_names[int(number)]


def check_words(place: str, words_name: str, words: Any, tags_name: str, tags: Any) -> None:
    """Check that the words and the tags of a sentence are two lists of the same length.

    Raises:
        UserError: If they are not.
    """
    for name, value in ((words_name, words), (tags_name, tags)):
        if not isinstance(value, list):
            raise UserError(
                f"{place}: {name} is not a list with an entry for each word; set `words` and `tags` to "
                "columns with such lists."
            )
    if not all(isinstance(word, str) for word in words):
        raise UserError(
            f"{place}: {words_name} has an entry that is not text; set `words` to the column of words."
        )
    if len(words) != len(tags):
        raise UserError(
            f"{place} has {len(words)} words in {words_name} but {len(tags)} tags in {tags_name}; set "
            "`words` and `tags` to columns that belong together, or remove the row."
        )

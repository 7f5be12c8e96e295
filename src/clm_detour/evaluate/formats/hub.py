"""A dataset of the Hugging Face hub: a text and its labels in columns, or words and tags as the hub's entity sets have them. Read at one commit; nothing from it is executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clm_detour.config.schema import Source
from clm_detour.data.sources.readers import READERS
from clm_detour.data.sources.records import Record
from clm_detour.evaluate.formats.conll import Row, tag_of, tagged
from clm_detour.evaluate.formats.form import Example
from clm_detour.evaluate.formats.table import Table, cell, written
from clm_detour.utils.errors import UserError


@dataclass(frozen=True)
class Hub(Table):
    """A dataset.

    Args:
        path: its id, or a local copy of it.
        subset: its configuration.
        revision: branch, tag or commit; where there is no network, a whole commit.
        splits: what it calls the splits, where it is not train, validation, test.
        words: the column of a sentence's words; its tags are in `tags`.
        tag_names: of tags that are numbers.
    """

    path: str = ""
    subset: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    words: str | None = None
    tags: str = "ner_tags"
    tag_names: tuple[str, ...] = ()

    def find(self, folder: Path, split: str) -> list[Path]:
        """It lies elsewhere."""
        return [Path(self.path, split)]

    def rows(self, file: Path, split: str) -> Iterator[Record]:
        """Those of one split."""
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
                assert isinstance(record, Record)  # its columns have types: none is broken
                yield record

    def example(self, record: Record, number: str) -> Example:
        """One row."""
        if self.words is None:
            return super().example(record, number)
        words, given = cell(record, self.words), cell(record, self.tags)
        check_words(record.place, self.words, words, self.tags, given)
        tags = [self.tag_name(tag, record.place) for tag in given]
        rows = [
            Row(word.strip(), *tag_of(tag, None, record.place), record.place)
            for word, tag in zip(words, tags, strict=True)
        ]
        id = self.id_of(record, number)
        return tagged(id, rows) if rows else Example(id, "", record.place)

    def tag_name(self, tag: Any, place: str) -> str:
        """A tag as the other forms have it."""
        if isinstance(tag, str):
            return tag.strip()
        number = written(tag)
        if not number.isdecimal() or int(number) >= len(self.tag_names):
            raise UserError(
                f"{place}: the tag {number or 'null'} is none of {len(self.tag_names)} names; set `tag_names` to those of 0, 1, 2, ..."
            )
        return self.tag_names[int(number)]


def check_words(place: str, words_name: str, words: Any, tags_name: str, tags: Any) -> None:
    """A sentence's words and its tags must be two lists of one length.

    Raises:
        UserError: they are not.
    """
    for name, value in ((words_name, words), (tags_name, tags)):
        if not isinstance(value, list):
            raise UserError(
                f"{place}: {name} is no list with an entry for each word; set `words` and `tags` to columns that have such."
            )
    if not all(isinstance(word, str) for word in words):
        raise UserError(
            f"{place}: {words_name} has an entry that is no text; set `words` to the column of words."
        )
    if len(words) != len(tags):
        raise UserError(
            f"{place} has {len(words)} words in {words_name} but {len(tags)} tags in {tags_name}; set `words` and `tags` to "
            "columns that belong together, or remove the row."
        )

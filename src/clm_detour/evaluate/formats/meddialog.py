"""MedDialog-FR (Laouar et al., LREC 2024), which has labels and texts in two files with tabs between cells.

`dataset_multilabel_meddialog_22labels.csv` has ids, splits and labels. `meddialog-fr-women_post-editing.csv`
has the translated and edited texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clm_detour.evaluate.formats.format import Example, Files, Format, count_skipped, matching_paths
from clm_detour.evaluate.formats.table import NO_SPLIT, cell, name_of, read_records, split_of
from clm_detour.utils.errors import UserError

CONCEPT = re.compile(r"C\d{7}")


@dataclass(frozen=True)
class MedDialog(Format):
    """The two files of the data set."""

    files: Files = ("multilabel_annotation/*22labels.csv", "*22labels.csv")

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """Yield an example for each question with its answer."""
        texts = read_texts(file.parent)
        for record in read_records(file, "tsv", quoted=True):
            id = name_of(record, "id")
            if (named := split_of(record, "split")) != split:
                if named is None and split == "train":  # the file is read for each split; count the row once
                    yield from count_skipped(record.place, [NO_SPLIT])
                continue
            question, answer = texts.get(id), texts.get(f"{id.removesuffix('_q')}_a")
            if not question:
                raise UserError(f"{record.place}: there is no text of {id}; get the data set again.")
            text = f"Question: {question}" + (f"\n\nRéponse: {answer}" if answer else "")
            yield Example(id, text, record.place, labels=tuple(CONCEPT.findall(cell(record, "labels"))))


def read_texts(folder: Path) -> dict[str, str]:
    """Return the edited texts by id."""
    places = (folder, folder.parent / "post-editing")
    file = next((path for place in places for path in matching_paths(place, "*post-editing.csv")), None)
    if file is None:
        raise UserError(
            f"There is no meddialog-fr-women_post-editing.csv in {folder} or in ../post-editing; "
            "get the data set again."
        )
    return {
        str(cell(one, "id")): cell(one, "post-edited").strip()
        for one in read_records(file, "tsv", quoted=True)
    }

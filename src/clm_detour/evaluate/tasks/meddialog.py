"""MedDialog-FR, women's health (Laouar et al., LREC 2024): which of 22 UMLS concepts a patient's question and its answer are about.

`dataset_multilabel_meddialog_22labels.csv` has id, split and labels; the texts, translated and edited, are in `meddialog-fr-women_post-editing.csv`. Both are divided by tabs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clm_detour.config.protocols import FRENCH_CODES
from clm_detour.evaluate.formats.files import visible
from clm_detour.evaluate.formats.form import Example, Files, Form, skipped
from clm_detour.evaluate.formats.table import NO_SPLIT, Table, cell, name_of, records, split_of
from clm_detour.evaluate.tasks.make import make_task
from clm_detour.utils.errors import UserError

CONCEPT = re.compile(r"C\d{7}")


@dataclass(frozen=True)
class Dialogues(Form):
    """Labels in one file, texts in another."""

    files: Files = ("multilabel_annotation/*22labels.csv", "*22labels.csv")

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """A question and its answer each."""
        texts = edited(file.parent)
        for record in records(file, "tsv", quoted=True):
            id = name_of(record, "id")
            if (named := split_of(record, "split")) != split:
                if named is None and split == "train":  # the file is read once for each split
                    yield from skipped(record.place, [NO_SPLIT])
                continue
            question, answer = texts.get(id), texts.get(f"{id.removesuffix('_q')}_a")
            if not question:
                raise UserError(f"{record.place}: there is no text of {id}.")
            text = f"Question: {question}" + (f"\n\nRéponse: {answer}" if answer else "")
            yield Example(id, text, record.place, labels=tuple(CONCEPT.findall(cell(record, "labels"))))


def edited(folder: Path) -> dict[str, str]:
    """The texts by id."""
    places = (folder, folder.parent / "post-editing")
    file = next((path for place in places for path in visible(place, "*post-editing.csv")), None)
    if file is None:
        raise UserError(f"{folder} has no meddialog-fr-women_post-editing.csv, here or in ../post-editing.")
    return {
        str(cell(one, "id")): cell(one, "post-edited").strip() for one in records(file, "tsv", quoted=True)
    }


TASKS = (
    make_task(
        "MedDialog",
        "fr",
        "multi_label",
        (),
        Dialogues(),
        Table("data/{split}-*.parquet", label="labels_raw"),
        metric="macro_f1",
        protocol=FRENCH_CODES,
        folders=("MedDialog-FR/MedDialog-FR-women", "MedDialog-FR"),
        licence="as its authors state",
        obtain="Free: MedDialog-FR on GitHub (LREC 2024).",
        published={"documents": 900, "labels": 22},
    ),
)

"""Phenotype (Moseley et al. 2020): which of thirteen conditions a MIMIC-III note shows, and whether its annotators were unsure.

`ACTdb102003.csv` names notes of MIMIC-III by ROW_ID; their text comes from `NOTEEVENTS.csv` or `NOTEEVENTS.csv.gz` in the same folder. Rows that say both none and a
condition are left out, as in the code that goes with BioClinical-ModernBERT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from clm_detour.config.protocols import ENGLISH_LABELS, LONG
from clm_detour.data.sources.records import Record
from clm_detour.evaluate.formats.form import Example, Files, Form, skipped
from clm_detour.evaluate.formats.table import cell, is_set, records
from clm_detour.evaluate.tasks.make import make_task
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import console

CONDITIONS = (
    "ADVANCED.CANCER",
    "ADVANCED.HEART.DISEASE",
    "ADVANCED.LUNG.DISEASE",
    "ALCOHOL.ABUSE",
    "CHRONIC.NEUROLOGICAL.DYSTROPHIES",
    "CHRONIC.PAIN.FIBROMYALGIA",
    "DEMENTIA",
    "DEPRESSION",
    "DEVELOPMENTAL.DELAY.RETARDATION",
    "NON.ADHERENCE",
    "OBESITY",
    "OTHER.SUBSTANCE.ABUSE",
    "SCHIZOPHRENIA.AND.OTHER.PSYCHIATRIC.DISORDERS",
    "UNSURE",
)


@dataclass(frozen=True)
class Annotated(Form):
    """Annotations by ROW_ID, and MIMIC's notes."""

    files: Files = "ACTdb*.csv"

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """A note each; those of a patient are parts of one document."""
        every = list(records(file))
        kept = [record for record in every if not contradictory(record)]
        texts = notes(file.parent, {str(cell(record, "ROW_ID")) for record in kept})
        for record in kept:
            row = str(cell(record, "ROW_ID"))
            if row not in texts:
                raise UserError(f"{record.place}: NOTEEVENTS has no ROW_ID {row}; is it of MIMIC-III 1.4?")
            labels = tuple(name for name in CONDITIONS if is_set(record, name))
            patient = cell(record, "SUBJECT_ID")
            yield Example(f"{patient}#{row}", texts[row], record.place, labels=labels)
        yield from skipped(str(file), ["notes with a condition and none"] * (len(every) - len(kept)))


def contradictory(record: Record) -> bool:
    """None of them, and one of them."""
    return is_set(record, "NONE") and any(is_set(record, name) for name in CONDITIONS)


def notes(folder: Path, wanted: set[str]) -> dict[str, str]:
    """The text of some notes of MIMIC, out of two million."""
    file = next((path for path in sorted(folder.glob("NOTEEVENTS.csv*"))), None)
    if file is None:
        raise UserError(f"{folder} has no NOTEEVENTS.csv or NOTEEVENTS.csv.gz of MIMIC-III; link it there.")
    found: dict[str, str] = {}
    for number, record in enumerate(records(file)):
        if number % 250_000 == 0:  # lines, not a bar: the caller may show one
            console.print(f"Notes of MIMIC-III: {len(found):,} of {len(wanted):,} found in {number:,}")
        if (row := str(cell(record, "ROW_ID"))) in wanted:
            found[row] = cell(record, "TEXT")
        if len(found) == len(wanted):
            break
    return found


TASKS = (
    make_task(
        "Phenotype",
        "en",
        "multi_label",
        CONDITIONS,
        Annotated(),
        protocol=replace(ENGLISH_LABELS, max_tokens=LONG),
        held_out={"validation": 0.1, "test": 0.2},
        folders=("phenotype-annotations-mimic",),
        licence="PhysioNet Credentialed Health Data License",
        obtain="Become credentialed at PhysioNet: https://physionet.org/content/phenotype-annotations-mimic, and MIMIC-III for NOTEEVENTS.csv.",
    ),
)

"""Phenotype annotations of notes in MIMIC-III (Moseley et al. 2020), whose texts are in another data set.

`ACTdb102003.csv` has a flag for each condition of a note, which is named by its ROW_ID. The text comes from
MIMIC-III's `NOTEEVENTS.csv` or `NOTEEVENTS.csv.gz` in the same folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clm_detour.data.sources.records import Record
from clm_detour.evaluate.formats.format import Example, Files, Format, count_skipped
from clm_detour.evaluate.formats.table import cell, is_set, read_records
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import console


@dataclass(frozen=True)
class Phenotype(Format):
    """The annotations and the notes of MIMIC-III.

    Rows with both NONE and a condition are left out, as in the code of BioClinical-ModernBERT.

    Args:
        flags: Columns of the conditions.
    """

    files: Files = "ACTdb*.csv"
    flags: tuple[str, ...] = ()

    def examples(self, file: Path, split: str) -> Iterator[Example]:
        """Yield an example for each note; the notes of a patient are parts of one document."""
        rows = list(read_records(file))
        kept = [record for record in rows if not (is_set(record, "NONE") and self.conditions(record))]
        texts = read_notes(file.parent, {str(cell(record, "ROW_ID")) for record in kept})
        for record in kept:
            row = str(cell(record, "ROW_ID"))
            if row not in texts:
                raise UserError(f"{record.place}: NOTEEVENTS has no ROW_ID {row}; is it of MIMIC-III 1.4?")
            patient = cell(record, "SUBJECT_ID")
            yield Example(f"{patient}#{row}", texts[row], record.place, labels=self.conditions(record))
        yield from count_skipped(str(file), ["notes with a condition and none"] * (len(rows) - len(kept)))

    def conditions(self, record: Record) -> tuple[str, ...]:
        """Return the conditions of a note."""
        return tuple(name for name in self.flags if is_set(record, name))


def read_notes(folder: Path, wanted: set[str]) -> dict[str, str]:
    """Return the texts of the wanted notes, out of the two million of MIMIC-III."""
    file = next(iter(sorted(folder.glob("NOTEEVENTS.csv*"))), None)
    if file is None:
        raise UserError(f"{folder} has no NOTEEVENTS.csv or NOTEEVENTS.csv.gz of MIMIC-III; link it there.")
    found: dict[str, str] = {}
    for number, record in enumerate(read_records(file)):
        if number % 250_000 == 0:  # print lines, because the caller may show a progress bar
            console.print(f"Notes of MIMIC-III: {len(found):,} of {len(wanted):,} found in {number:,}")
        if (row := str(cell(record, "ROW_ID"))) in wanted:
            found[row] = cell(record, "TEXT")
        if len(found) == len(wanted):
            break
    return found

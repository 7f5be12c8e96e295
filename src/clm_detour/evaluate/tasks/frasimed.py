"""Codes of French clinical cases: FRACCO (Pignat et al. 2025), and CANTEMIST and DISTEMIST as FRASIMED (Zaghir et al. 2024) put them into French.

Annotations carry codes as notes (`#1 <TAB> ICD-O-3.1 T9 <TAB> 8500/3`); a case has the codes of all of them, of which the most frequent count. Cases without any of
these are left out, the others drawn 80, 10, 10 by their sorted names shuffled with seed 42, as the first author's benchmark does. How many codes
the paper takes of CANTEMIST and DISTEMIST is not published; 100 is what that benchmark hands round of CANTEMIST.
"""

from __future__ import annotations

from clm_detour.config.protocols import FRENCH_CODES
from clm_detour.evaluate.formats.brat import Brat
from clm_detour.evaluate.formats.table import Table
from clm_detour.evaluate.tasks.make import make_task
from clm_detour.evaluate.tasks.task import Task

MORPHOLOGY = ("ICD-O-3.1", "ICD-O-3", "ICD-O", "CIM-O-3", "CIM-O")


def codes(name: str, kinds: tuple[str, ...], count: int, folders: tuple[str, ...], source: str) -> Task:
    """Documents and their codes."""
    return make_task(
        name,
        "fr",
        "multi_label",
        (),
        Brat({"train": ("*.txt", "*/*.txt", "*/*/*.txt")}, codes=kinds),
        Table({"train": ("*.parquet", "data/*.parquet")}, label="codes"),
        metric="macro_f1",
        protocol=FRENCH_CODES,
        held_out={"validation": 0.1, "test": 0.1},
        most_frequent=count,
        folders=folders,
        licence="as Zenodo states",
        obtain=f"Free: {source}.",
    )


FRACCO = "FRACCO, https://zenodo.org/records/17284817"
FRASIMED = "FRASIMED, https://doi.org/10.5281/zenodo.8355628"
TASKS = (
    codes("FRACCO-30", MORPHOLOGY, 30, ("FRACCO",), FRACCO),
    codes("FRACCO-100", MORPHOLOGY, 100, ("FRACCO",), FRACCO),
    codes("CANTEMIST", ("ICD-O-3.1",), 100, ("CANTEMIST-FRASIMED", "FRASIMED/CANTEMIST-FRASIMED"), FRASIMED),
    codes("DISTEMIST", ("SNOMED",), 100, ("DISTEMIST-FRASIMED", "FRASIMED/DISTEMIST-FRASIMED"), FRASIMED),
)

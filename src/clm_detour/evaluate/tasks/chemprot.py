"""ChemProt (BioCreative VI): how a chemical and a protein in a sentence are related; the pair is marked and everything else masked."""

from __future__ import annotations

from clm_detour.evaluate.formats.biocreative import BioCreative
from clm_detour.evaluate.formats.table import Table
from clm_detour.evaluate.tasks.make import make_task

LABELS = ("CPR:3", "CPR:4", "CPR:5", "CPR:6", "CPR:9", "False")

TASKS = (
    make_task(
        "ChemProt",
        "en",
        "single_label",
        LABELS,
        Table(text="sentence"),
        BioCreative(
            {
                "train": "**/chemprot_training_abstracts.tsv",
                "validation": "**/chemprot_development_abstracts.tsv",
                "test": "**/chemprot_test_abstracts*.tsv",
            }
        ),
        folders=("ChemProt_Corpus",),
        negative="False",
        rename={"false": "False", **dict.fromkeys(("CPR:1", "CPR:2", "CPR:7", "CPR:8", "CPR:10"), "False")},
        licence="public domain",
        obtain="Free: track 5 of BioCreative VI (https://biocreative.bioinformatics.udel.edu), or BLURB's preprocessing of it.",
        published={"train.documents": 16521, "validation.documents": 10361, "test.documents": 14396}
        | {"train.positive": 4132, "validation.positive": 2412, "test.positive": 3441},
    ),
)

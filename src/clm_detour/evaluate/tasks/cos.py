"""COS (Klassen et al. 2014, University of Washington): what changed, where and how, in sentences of chest X-ray reports."""

from __future__ import annotations

from clm_detour.config.protocols import ENGLISH_ENTITIES
from clm_detour.evaluate.formats.brat import Brat
from clm_detour.evaluate.tasks.deid import DRAWN
from clm_detour.evaluate.tasks.make import make_task

TASKS = (
    make_task(
        "COS",
        "en",
        "entities",
        ("Attr", "Cos", "Loc", "Ref", "Val"),
        Brat(("snippet*.txt", "data/snippet*.txt", "*/data/snippet*.txt"), part="Snippet"),
        protocol=ENGLISH_ENTITIES,
        overlaps="last",
        held_out=DRAWN,
        folders=("events-COS-corpus",),
        licence="as its authors state",
        obtain="Free: UW BioNLP, https://depts.washington.edu/bionlp (events-COS-corpus).",
        published={"documents": 1008},
    ),
)

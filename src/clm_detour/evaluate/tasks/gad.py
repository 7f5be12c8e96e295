"""GAD (Bravo et al. 2015): whether a sentence says that a gene and a disease are associated; both are masked."""

from __future__ import annotations

from clm_detour.evaluate.formats.table import Table
from clm_detour.evaluate.tasks.make import make_task

TASKS = (
    make_task(
        "GAD",
        "en",
        "single_label",
        ("0", "1"),
        Table(text="sentence"),
        negative="0",
        metric="positive_f1",
        licence="CC BY 4.0",
        obtain="Free: BLURB's split, as https://github.com/michiyasunaga/LinkBERT hands it round.",
        published={"train.documents": 4261, "validation.documents": 535, "test.documents": 534},
    ),
)

"""Hallmarks of Cancer (Baker et al. 2016): which of ten hallmarks an abstract speaks of. Files hold its sentences; as BLURB scores it, an abstract has the labels of any."""

from __future__ import annotations

from clm_detour.evaluate.formats.table import Table
from clm_detour.evaluate.tasks.make import make_task

HALLMARKS = (
    "activating invasion and metastasis",
    "avoiding immune destruction",
    "cellular energetics",
    "enabling replicative immortality",
    "evading growth suppressors",
    "genomic instability and mutation",
    "inducing angiogenesis",
    "resisting cell death",
    "sustaining proliferative signaling",
    "tumor promoting inflammation",
)


def hallmarks(cell: str) -> list[str]:
    """`0_0,1_1,...` -> the names whose flag is 1.

    Raises:
        ValueError: it is not of this form.
    """
    flags = dict(part.split("_", 1) for part in cell.split(",") if "_" in part)
    if set(flags) != set(map(str, range(10))) or not set(flags.values()) <= {"0", "1"}:
        raise ValueError(f"the labels ({len(cell)} characters) are not of the form 0_0,1_1,...,9_0.")
    return [name for number, name in enumerate(HALLMARKS) if flags[str(number)] == "1"]


TASKS = (
    make_task(
        "HoC",
        "en",
        "multi_label",
        HALLMARKS,
        Table(text="sentence", label="labels", separate=hallmarks, id="index", document=r"(\d+)_s\d+"),
        licence="GPL 3.0",
        obtain="Free: https://github.com/sb895/Hallmarks-of-Cancer, in BLURB's split.",
        published={"train.documents": 1295, "validation.documents": 186, "test.documents": 371},
    ),
)

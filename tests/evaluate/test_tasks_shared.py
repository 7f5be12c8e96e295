"""The registered tasks on their real data sets: every count equals the published one."""

from __future__ import annotations

from pathlib import Path

import pytest

from clm_detour.evaluate.tasks import TASKS, Splits, Task, load

PRESENT = (
    "ChemProt",
    "SocialHistory",
    "AnatEM",
    "BC5CDR",
    "JNLPBA",
    "NCBI-disease",
    "GAD",
    "HoC",
    "EMEA",
    "Medline",
)
pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def loaded(shared_data: Path) -> dict[str, tuple[Task, Splits]]:
    return {name: load(TASKS[name], shared_data / "tasks") for name in PRESENT}


@pytest.mark.parametrize("name", PRESENT)
def test_every_split_has_as_many_documents_as_published(loaded, name):
    task, splits = loaded[name]
    for split, documents in splits.items():
        assert len(documents) == task.published[f"{split}.documents"]

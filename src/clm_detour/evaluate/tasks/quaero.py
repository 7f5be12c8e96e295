"""QUAERO French Medical Corpus (Névéol et al. 2014): nested and discontinuous entities of ten types, in drug leaflets (EMEA) and titles (MEDLINE)."""

from __future__ import annotations

from clm_detour.config.protocols import QUAERO
from clm_detour.evaluate.formats.brat import Brat
from clm_detour.evaluate.tasks.make import make_task
from clm_detour.evaluate.tasks.task import Task

TYPES = ("ANAT", "CHEM", "DEVI", "DISO", "GEOG", "LIVB", "OBJC", "PHEN", "PHYS", "PROC")


def quaero(name: str, folder: str, documents: tuple[int, int, int], entities: tuple[int, int, int]) -> Task:
    """One of its two parts."""
    splits = ("train", "validation", "test")
    published = {f"{split}.documents": count for split, count in zip(splits, documents, strict=True)}
    published |= {f"{split}.entities": count for split, count in zip(splits, entities, strict=True)}
    return make_task(
        name,
        "fr",
        "nested_entities",
        TYPES,
        Brat((f"{{split}}/{folder}/*.txt", f"{folder}/{{split}}/*.txt", "{split}/*.txt")),
        protocol=QUAERO,
        folders=("QUAERO", "QUAERO_FrenchMed/corpus", "QUAERO_FrenchMed"),
        licence="GFDL 1.3",
        obtain="Free: https://quaerofrenchmed.limsi.fr.",
        published=published,
    )


TASKS = (
    quaero("EMEA", "EMEA", (11, 12, 15), (2695, 2260, 2204)),
    quaero("Medline", "MEDLINE", (833, 832, 833), (2994, 2977, 3103)),
)

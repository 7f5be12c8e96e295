"""Biomedical entities in sentences, as BLURB (Gu et al., arXiv 2007.15779) and MTL-Bioinformatics-2016 hand them round: a word and its tag a line.

BigBIO's copies have whole abstracts instead, with the finer types of the original annotation."""

from __future__ import annotations

from clm_detour.config.protocols import ENGLISH_ENTITIES
from clm_detour.evaluate.formats.bigbio import BigBio
from clm_detour.evaluate.formats.conll import Conll
from clm_detour.evaluate.tasks.make import make_task

ANATOMY = (
    "Anatomical_system",
    "Cancer",
    "Cell",
    "Cellular_component",
    "Developing_anatomical_structure",
    "Immaterial_anatomical_entity",
    "Multi-tissue_structure",
    "Organ",
    "Organism_subdivision",
    "Organism_substance",
    "Pathological_formation",
    "Tissue",
)
CRICHTON = "https://github.com/cambridgeltl/MTL-Bioinformatics-2016"


def blurb(name: str, labels: tuple[str, ...], form: Conll, source: str, **more):  # type: ignore[no-untyped-def]
    """One of them."""
    return make_task(
        name,
        "en",
        "entities",
        labels,
        form,
        BigBio(),
        overlaps="longest",
        protocol=ENGLISH_ENTITIES,
        obtain=f"Free: {source}.",
        **more,
    )


TASKS = (
    blurb(
        "AnatEM",
        ("Anatomy",),
        Conll(),
        f"the folder AnatEM-IOB of {CRICHTON}",
        folders=("AnatEM-IOB",),
        rename=dict.fromkeys(ANATOMY, "Anatomy"),
        licence="CC BY-SA 3.0",
        published={
            "train.documents": 5861,
            "validation.documents": 2118,
            "test.documents": 3830,
            "entities": 13701,
        },
    ),
    blurb(
        "BC5CDR",
        ("Chemical", "Disease"),
        Conll(),
        f"the folder BC5CDR-IOB of {CRICHTON}",
        folders=("BC5CDR-IOB",),
        licence="public domain",
        published={
            "train.documents": 4560,
            "validation.documents": 4581,
            "test.documents": 4797,
            "entities.Chemical": 15935,
            "entities.Disease": 12852,
        },
    ),
    blurb(
        "JNLPBA",
        ("Entity",),
        Conll(label="Entity"),
        f"the folder JNLPBA of {CRICHTON}, or BLURB's script",
        licence="CC BY 3.0",
        disjoint=False,  # ten abstracts of the test set are in the training set
        rename=dict.fromkeys(("protein", "DNA", "RNA", "cell_line", "cell_type"), "Entity"),
        published={
            "train.documents": 16807,
            "validation.documents": 1739,
            "test.documents": 3856,
            "train.entities": 46750,
            "validation.entities": 4551,
            "test.entities": 8662,
        },
    ),
    blurb(
        "NCBI-disease",
        ("Disease",),
        Conll(),
        f"the folder NCBI-disease-IOB of {CRICHTON}",
        folders=("NCBI-disease-IOB",),
        licence="CC0 1.0",
        published={
            "train.documents": 5424,
            "validation.documents": 923,
            "test.documents": 940,
            "entities": 6881,
        },
    ),
)

"""Social History (Yetisgen and Vanderwende 2017, University of Washington): substance use, work, family and living situation, with their arguments.

A word can be an event and its argument at once ("drinks"). Tags are flat: as in the code that goes with BioClinical-ModernBERT, where later
annotations are written over earlier ones, the one that begins last is kept.
"""

from __future__ import annotations

from clm_detour.config.protocols import ENGLISH_ENTITIES
from clm_detour.evaluate.formats.brat import Brat
from clm_detour.evaluate.tasks.make import make_task

EVENTS = (
    "Alcohol",
    "Drug",
    "EnvironmentalExposure",
    "Family",
    "InfectiousDiseases",
    "LivingStatus",
    "MaritalStatus",
    "MedicalCondition",
    "Occupation",
    "Other",
    "PhysicalActivity",
    "Residence",
    "SexualHistory",
    "Tobacco",
)
ARGUMENTS = (
    "Amount",
    "ExposureHistory",
    "Extent",
    "Frequency",
    "History",
    "Location",
    "Method",
    "QuitHistory",
    "Status",
    "Temporal",
    "Type",
)

TASKS = (
    make_task(
        "SocialHistory",
        "en",
        "entities",
        EVENTS + ARGUMENTS,
        Brat(check_text=False),  # ten annotations quote the text wrongly: "eStatus" for "estate"
        protocol=ENGLISH_ENTITIES,
        rename={"StatusTime": "Status", "Time": "Temporal", "LivingSituation": "LivingStatus"},
        overlaps="last",
        licence="as its authors state",
        obtain="Ask UW BioNLP, https://depts.washington.edu/bionlp.",
        published={
            "train.documents": 251,
            "validation.documents": 73,
            "test.documents": 37,
            "annotations": 3778,
        },
    ),
)

"""De-identification. English: PhysioNet's nursing notes (Neamatullah et al. 2008), or the discharge summaries of i2b2 2006. Spanish, beside the paper's tasks: MEDDOCAN 2019."""

from __future__ import annotations

from dataclasses import replace

from clm_detour.config.protocols import ENGLISH_ENTITIES, LONG
from clm_detour.evaluate.formats.brat import Brat
from clm_detour.evaluate.formats.i2b2 import I2b2
from clm_detour.evaluate.formats.physionet import PhysioNet
from clm_detour.evaluate.tasks.make import make_task

PROTOCOL = replace(ENGLISH_ENTITIES, max_tokens=LONG)
DRAWN = {
    "validation": 0.15,
    "test": 0.15,
}  # the sets that BioClinical-ModernBERT's code splits itself: 70, 15, 15
I2B2_2006 = ("AGE", "DATE", "DOCTOR", "HOSPITAL", "ID", "LOCATION", "PATIENT", "PHONE")
MEDDOCAN = (
    "CALLE",
    "CENTRO_SALUD",
    "CORREO_ELECTRONICO",
    "EDAD_SUJETO_ASISTENCIA",
    "FAMILIARES_SUJETO_ASISTENCIA",
    "FECHAS",
    "HOSPITAL",
    "ID_ASEGURAMIENTO",
    "ID_CONTACTO_ASISTENCIAL",
    "ID_EMPLEO_PERSONAL_SANITARIO",
    "ID_SUJETO_ASISTENCIA",
    "ID_TITULACION_PERSONAL_SANITARIO",
    "INSTITUCION",
    "NOMBRE_PERSONAL_SANITARIO",
    "NOMBRE_SUJETO_ASISTENCIA",
    "NUMERO_FAX",
    "NUMERO_TELEFONO",
    "OTROS_SUJETO_ASISTENCIA",
    "PAIS",
    "PROFESION",
    "SEXO_SUJETO_ASISTENCIA",
    "TERRITORIO",
)

TASKS = (
    make_task(
        "DEID",
        "en",
        "entities",
        ("age", "date", "location", "name", "other", "phone_nb"),
        PhysioNet(),
        protocol=PROTOCOL,
        held_out=DRAWN,
        folders=("deidentifiedmedicaltext", "deidentifiedmedicaltext-1.0"),
        licence="PhysioNet Restricted Health Data License",
        obtain="Sign the agreement at https://physionet.org/content/deidentifiedmedicaltext.",
        published={"documents": 2434},
    ),
)
MORE = (
    make_task(
        "i2b2-2006",
        "en",
        "entities",
        I2B2_2006,
        I2b2({"train": "*train*.xml", "test": "*test*groundtruth*.xml"}),
        protocol=PROTOCOL,
        held_out={"validation": 0.1},
        licence="n2c2 data use agreement",
        obtain="Sign the agreement at https://portal.dbmi.hms.harvard.edu (n2c2 NLP data sets, 2006 de-identification).",
        published={"documents": 889},
    ),
    make_task(
        "MEDDOCAN",
        "es",
        "entities",
        MEDDOCAN,
        Brat(("{split}/*.txt", "{split}/brat/*.txt")),
        protocol=PROTOCOL,
        folders=("meddocan",),
        licence="CC BY 4.0",
        obtain="Free: https://zenodo.org/records/4279323.",
        published={
            "train.documents": 500,
            "validation.documents": 250,
            "test.documents": 250,
            "entities": 22795,
        },
    ),
)

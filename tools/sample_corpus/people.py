"""Patients whose age and sex fit their disease, and prescriptions in words and abbreviations."""

from __future__ import annotations

import re
from types import SimpleNamespace

from sample_corpus.choices import Choices
from sample_corpus.english import Phrase
from sample_corpus.vocabulary import Disease, Drug, Lab

ROUTES = {
    "PO": "oral", "IV": "intravenous", "SC": "subcutaneous", "IM": "intramuscular",
    "INH": "inhaled", "SL": "sublingual",
    "TOP": "topical", "OPH": "ophthalmic", "IVT": "intravitreal", "IT": "intrathecal",
}  # fmt: skip
SCHEDULES = {
    "daily": "once daily", "BID": "twice daily", "TID": "three times daily", "QID": "four times daily",
    "qHS": "at bedtime", "PRN": "as needed", "q8h": "every 8 hours", "once": "as a single dose",
    "weekly": "once weekly", "continuous": "as a continuous infusion",
}  # fmt: skip
COMORBID = (
    "hypertension", "type 2 diabetes", "hyperlipidemia", "gastroesophageal reflux disease", "osteoarthritis",
    "hypothyroidism", "asthma", "atrial fibrillation", "chronic kidney disease", "major depressive disorder",
    "generalized anxiety disorder", "gout", "osteoporosis", "migraine", "rheumatoid arthritis", "psoriasis",
    "obstructive sleep apnea", "iron deficiency anemia", "insomnia disorder",
    "allergic rhinitis", "stable angina",
    "heart failure", "peripheral artery disease", "epilepsy",
    "chronic obstructive pulmonary disease", "obesity",
    "restless legs syndrome", "overactive bladder", "irritable bowel syndrome", "open-angle glaucoma",
)  # fmt: skip
FEMALE = ("breast", "ovary", "uterus", "cervix", "placenta", "pelvic peritoneum")
MALE = ("prostate", "penis")
NO_HISTORY = re.compile(
    r"\b(sex|age|ancestry|season|skin|habitus|adolescence|colonization|family history)$|^first "
)
AGES = {  # a risk or specialty that tells the age of those affected
    "pediatrics": (1, 8), "obstetrics": (20, 41), "school age": (5, 12), "adolescence": (13, 22),
    "consanguinity": (4, 34), "young age": (14, 32), "older age": (56, 88),
}  # fmt: skip


def patient(choices: Choices, disease: Disease) -> SimpleNamespace:
    """Return a person with the disease: age, noun, pronouns and the letter for the sex."""
    signs = {disease.specialty, *(risk.text for risk in disease.risks)}
    low, high = next((ages for sign, ages in AGES.items() if sign in signs), (24, 72))
    organ = disease.organ.name.text
    woman = organ in FEMALE or (organ not in MALE and choices.chance(0.5))
    age = choices.between(low, high)
    noun = ("girl" if woman else "boy") if age < 13 else ("woman" if woman else "man")
    he, him, his, letter = ("she", "her", "her", "F") if woman else ("he", "him", "his", "M")
    sex = "female" if woman else "male"
    return SimpleNamespace(
        age=age, man=noun, he=he, him=him, his=his, letter=letter, sex=sex, child=age < 13,
        any_sex=organ not in FEMALE + MALE,
    )  # fmt: skip


def history(choices: Choices, disease: Disease) -> list[Phrase]:
    """Return past illnesses and habits of a patient: the disease's risks, without age, sex and the like."""
    kept = [risk for risk in disease.risks if not NO_HISTORY.search(risk.text)]
    return choices.sample(kept, len(kept)) or [Phrase("no known illness")]


def lab_value(choices: Choices, lab: Lab, sign: str) -> str:
    """Return a value of the test that is high ("+"), low ("-") or normal ("=")."""
    step = 10.0**-lab.decimals
    if sign == "+":
        low, high = lab.high + step, lab.top
    elif sign == "-":
        low, high = lab.bottom, lab.low - step
    else:
        return f"{choices.uniform(lab.low, lab.high):.{lab.decimals}f}"
    near, share = (low, choices.random() ** 2) if sign == "+" else (high, -(choices.random() ** 2))
    return f"{near + share * (high - low):.{lab.decimals}f}"


def schedule(drug: Drug) -> str:
    """Return how often the drug is given, in words."""
    return SCHEDULES.get(drug.frequency, drug.frequency)

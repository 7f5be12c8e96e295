"""Clinical notes: admissions, discharge summaries, progress, emergency, clinic and nursing notes, reports.

The wording is in `phrases/notes.txt`: telegraphic, abbreviated, in sections. Diseases, drugs, doses,
laboratory values and findings of one note fit each other.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

from sample_corpus.choices import Choices
from sample_corpus.english import Phrase, chain, stacked
from sample_corpus.grammar import Document, Grammar
from sample_corpus.people import COMORBID, history, lab_value, patient
from sample_corpus.vocabulary import Disease, Drug, Lab, Symptom, vocabulary

KINDS = (
    "admission", "admission", "discharge", "discharge", "progress",
    "progress", "emergency", "clinic", "clinic",
    "nursing", "report",
)  # fmt: skip
LONG_STAYS = 0.012
BASIC = ("Na", "K", "HCO3", "BUN", "Cr", "Glucose", "WBC", "Hb", "Plt")
NEGATIVES = (
    "fever", "chills", "nausea", "vomiting", "dyspnea", "palpitations",
    "headache", "dysuria", "diarrhea", "rash",
    "weight loss", "night sweats", "syncope", "cough", "abdominal pain", "dizziness",
)  # fmt: skip
SERVICES = {
    "cardiology": "CCU", "critical care": "MICU", "oncology": "OMED",
    "hematology": "BMT", "pediatrics": "PEDS",
    "psychiatry": "PSYCH", "neurology": "NEURO", "obstetrics": "OB", "general surgery": "SURG",
}  # fmt: skip


@cache
def grammar() -> Grammar:
    """Return the rules of clinical notes."""
    return Grammar("notes", vocabulary().annotate)


def write(choices: Choices) -> Document:
    """Return one note of 30 to 400 words, or a long stay of over 1,500."""
    document = Document(grammar(), choices)
    document.facts = draw_facts(choices)
    if choices.chance(LONG_STAYS):
        write_stay(document)
    else:
        write_note(document, choices.pick(KINDS))
    return document


def write_note(document: Document, kind: str, header: bool = True) -> None:
    """Write the sections of a note. One probability decides about all optional ones."""
    choices = document.choices
    fullness = choices.uniform(0.1, 1.0)
    separator = choices.pick(("\n", "\n", "\n\n")) if kind != "nursing" else " "
    outline = [name for name in grammar().outline(kind) if not name.endswith("?") or choices.chance(fullness)]
    if not header:
        outline = [name for name in outline if not name.endswith("/header?")]
    for place, name in enumerate(outline):
        document.write(separator if place else "")
        document.rule(name)


def write_stay(document: Document) -> None:
    """Write an admission, a progress note with new vitals and labs for each of many days, and a discharge."""
    choices, facts = document.choices, document.facts
    write_note(document, "admission")
    for day in range(2, choices.between(19, 25)):
        facts |= (
            {"day": day}
            | draw_vitals(choices, calm=True)
            | {"lab_line": lab_line(choices, facts["disease"], 0.3)}
        )
        facts["finding"] = choices.pick(facts["disease"].findings)
        document.write(f"\n\nHD#{day}\n")
        write_note(document, "progress", header=False)
    document.write("\n\n")
    write_note(document, "discharge")


def draw_facts(choices: Choices) -> dict[str, Any]:
    """Return a patient with a disease, complaints, medicines, vitals and laboratory values."""
    words = vocabulary()
    disease = choices.common(words.treatable)
    person = patient(choices, disease)
    others = draw_comorbidities(choices, disease, person)
    drug = choices.pick(disease.drugs)
    complaint = [symptom.brief for symptom in choices.sample(disease.symptoms, choices.between(1, 3))]
    signs = [symptom.name for symptom in choices.sample(disease.symptoms, 2)]
    lab, _ = choices.pick(disease.labs)
    regimen = {other: choices.pick(other.drugs) for other in others}
    medicines = [prescription(choices, known) for known in regimen.values()]
    problems = [problem(choices, other, known) for other, known in regimen.items()]
    order = prescription(choices, drug)
    marks = choices.pick((["- "] * 9, [f"{place}. " for place in range(1, 10)], [""] * 9))
    procedure = disease.procedure
    return {
        "disease": disease, "age": person.age, "letter": person.letter, "sex": person.sex,
        "dx": brief(disease), "other_dx": brief(choices.common(list(words.diseases.values()))),
        "pmh": [brief(other) for other in others] or ["no significant PMH"],
        "pmh_list": stacked([brief(other) for other in others] or [Phrase("None")], marks),
        "complaint": complaint, "complaint1": complaint[0], "exam_signs": signs,
        "negatives": draw_negatives(choices, disease),
        "drug": drug, "order": order, "adverse": choices.pick(drug.adverse).brief,
        "med_list": stacked(medicines or [Phrase("None")], marks), "med_inline": medicines or ["none"],
        "discharge_meds": stacked([order, *medicines], marks),
        "allergy": choices.common(words.drug_list).name,
        "family": history(choices, disease)[0] if choices.chance(0.2) else brief(disease),
        "problem_list": stacked(problems or [Phrase("PPX: ambulate")], ["# "] * 9),
        "problem_short": problems[0] if problems else "supportive care",
        "procedure_line": chain([Phrase("Underwent "), procedure, Phrase(".")]) if procedure.text else "",
        "finding": choices.pick(disease.findings), "organ": disease.organ, "lab": lab.brief,
        "specialty": disease.specialty, "service": SERVICES.get(disease.specialty, "MED"),
        "day": choices.between(2, 9),
        "weight": person.age * 2 + 9 if person.child else choices.between(52, 118),
        "lab_line": lab_line(choices, disease, 0.85), **draw_vitals(choices, calm=False),
    }  # fmt: skip


def draw_comorbidities(choices: Choices, disease: Disease, person: SimpleNamespace) -> list[Disease]:
    """Return up to four other illnesses that are common in adults; none in children."""
    if person.child:
        return []
    known = [vocabulary().diseases[name] for name in choices.sample(COMORBID, choices.between(1, 4))]
    return [other for other in known if other is not disease]


def draw_negatives(choices: Choices, disease: Disease) -> list[Symptom]:
    """Return symptoms that the patient does not have."""
    present = " ".join(symptom.name.text for symptom in disease.symptoms)
    absent = [name for name in choices.sample(NEGATIVES, 7) if name not in present]
    return [vocabulary().symptoms[name] for name in absent]


def draw_vitals(choices: Choices, calm: bool) -> dict[str, Any]:
    """Return temperature, blood pressure, pulse, breathing rate and oxygen saturation."""
    fever = choices.uniform(0.0, 0.6 if calm else 2.4) if choices.chance(0.4) else 0.0
    systolic = choices.between(98, 168)
    return {
        "t": f"{36.4 + fever + choices.uniform(0.0, 0.6):.1f}",
        "bp": f"{systolic}/{systolic * 5 // 9 + choices.between(0, 9)}",
        "hr": choices.between(58, 96 if calm else 124), "rr": choices.between(12, 18 if calm else 26),
        "spo2": choices.between(94 if calm else 88, 100),
    }  # fmt: skip


def lab_line(choices: Choices, disease: Disease, abnormal: float) -> str:
    """Return the laboratory tests of the disease, abnormal with this probability, among some basic ones."""
    labs = vocabulary().labs
    signs: dict[Lab, str] = {labs[code]: "=" for code in choices.sample(BASIC, choices.between(2, 6))}
    signs |= {lab: sign if choices.chance(abnormal) else "=" for lab, sign in disease.labs}
    flags = {"+": " (H)", "-": " (L)", "=": ""} if choices.chance(0.5) else {"+": "", "-": "", "=": ""}
    return ", ".join(
        f"{lab.brief} {lab_value(choices, lab, sign)}{flags[sign]}" for lab, sign in signs.items()
    )


def brief(disease: Disease) -> Phrase:
    """Return the abbreviation of a disease, or its name."""
    return disease.short if disease.short.text else disease.name


def prescription(choices: Choices, drug: Drug) -> Phrase:
    """Return drug, dose, route and frequency: "metformin 500 mg PO BID"."""
    name = drug.name
    frequency = drug.frequency.replace("every ", "q").replace(" weeks", "wk").replace(" months", "mo")
    return Phrase(f"{name.text} {choices.pick(drug.doses)} {drug.route} {frequency}", name.spans)


def problem(choices: Choices, other: Disease, drug: Drug) -> Phrase:
    """Return a line on a standing problem: "HTN: continue lisinopril"."""
    action = choices.pick(("continue", "cont home", "hold", "resume", "c/w"))
    return chain([brief(other), Phrase(f": {action} "), drug.name])

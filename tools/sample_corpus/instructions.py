"""Questions with answers and tasks with responses, as in instruction data: a dozen and a half kinds of task.

The wording is in `phrases/instructions.txt`; every answer follows from the tables.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

from sample_corpus.choices import Choices
from sample_corpus.english import Phrase, stacked
from sample_corpus.grammar import Document, Grammar, Rule
from sample_corpus.people import ROUTES, history, lab_value, patient, schedule
from sample_corpus.vocabulary import Disease, Drug, Lab, vocabulary

ABOUT_DISEASE = (
    "definition", "symptoms", "treatment", "diagnosis", "vignette", "prevention", "advice", "specialist",
    "abbreviation", "complications",
)  # fmt: skip
ABOUT_DRUG = ("drug", "mechanism", "adverse", "compare", "choice")
SHORT = ("gene", "organ", "true", "lab", "plain", "extract", "dose")
TASKS = (*ABOUT_DISEASE, *ABOUT_DISEASE, *ABOUT_DRUG, *ABOUT_DRUG, *SHORT)
SAID = {  # what an answer says by itself
    "definition": ("disease/nature", "disease/organ"), "symptoms": ("disease/symptoms", "disease/nature"),
    "treatment": ("disease/treatment",), "diagnosis": ("disease/tests",),
    "vignette": ("disease/nature", "disease/treatment", "disease/tests", "disease/symptoms"),
    "prevention": ("disease/risks", "disease/complications"),
    "complications": ("disease/complications", "disease/nature"),
    "advice": ("disease/nature", "disease/symptoms", "disease/advice", "disease/tests", "disease/treatment"),
    "specialist": ("disease/nature",), "abbreviation": ("disease/nature",),
    "drug": ("drug/class", "drug/uses", "drug/action", "drug/adverse"),
    "mechanism": ("drug/class", "drug/action"),
    "adverse": ("drug/adverse",), "compare": ("drug/class", "drug/action", "drug/adverse"),
    "choice": ("drug/class", "drug/action"),
}  # fmt: skip
LETTERS = "ABCD"


@cache
def grammar() -> Grammar:
    """Return the rules of questions and answers."""
    return Grammar("instructions", vocabulary().annotate)


def write(choices: Choices) -> tuple[Document, int]:
    """Return a prompt of one to four questions, a line break and the response; and the prompt's length."""
    document = Document(grammar(), choices)
    count = choices.pick((1, 1, 1, 2, 2, 3, 4))
    tasks = choices.sample(TASKS, count)
    facts = []
    for place, task in enumerate(tasks):
        document.facts = draw_facts(choices, task)
        draw_task(document, task)
        facts.append(document.facts)
        ask(document, f"{task} ask", place, count)
    document.write("\n")
    prompt = document.length - 1
    for place, task in enumerate(tasks):
        document.facts = facts[place]
        ask(document, f"{task} answer", place, count)
        elaborate(document, task, choices.random() / count)
    return document, prompt


def ask(document: Document, rule: str, place: int, count: int) -> None:
    """Write a question or answer, with its number if there are several."""
    if count > 1:
        document.write("\n" if document.parts and document.parts[-1][-1] != "\n" else "")
        document.write(f"{place + 1}. ")
    document.rule(rule)


def elaborate(document: Document, task: str, fullness: float) -> None:
    """Add some sentences on the disease or drug that the answer does not contain yet, in their order."""
    topic = "disease" if task in ABOUT_DISEASE else "drug" if task in ABOUT_DRUG else ""
    outline = [name for name in grammar().outline(topic) if name not in SAID.get(task, ())]
    count = max(0, int((1.8 * fullness - 0.4) * len(outline)))
    new_line = document.choices.chance(0.4)
    for place in sorted(document.choices.sample(range(len(outline)), count)):
        document.write("\n" if new_line and document.choices.chance(0.3) else " ")
        document.rule(outline[place])


def draw_facts(choices: Choices, task: str) -> dict[str, Any]:
    """Return two diseases with their drugs, a gene, an organ, a lab test and a patient."""
    words = vocabulary()
    diseases = words.treatable
    disease, comorbid = choices.common(diseases), choices.common(diseases)
    while not disease.short.text and task == "abbreviation":
        disease = choices.common(diseases)
    drug, *others = choices.sample(disease.drugs, 3)
    while comorbid is disease or drug in comorbid.drugs:
        comorbid = choices.common(diseases)
    person = patient(choices, disease)
    lab, sign = choices.pick(disease.labs)
    organ = choices.pick([organ for organ in words.organs.values() if organ.diseases])
    gene = (
        drug.target
        if drug.target and task not in ABOUT_DISEASE and choices.chance(0.5)
        else choices.pick(disease.genes)
    )
    symptoms = choices.sample(disease.symptoms, choices.between(2, 3))
    return {
        "disease": disease, "drug": SimpleNamespace(**vars(drug), route_word=ROUTES[drug.route]),
        "others": others or [Phrase("supportive care")],
        "dose": choices.pick(drug.doses), "schedule": schedule(drug),
        "comorbid": comorbid, "drug2": choices.pick(comorbid.drugs), "age": person.age, "man": person.man,
        "he": person.he, "his": person.his, "finding": choices.pick(disease.findings), "short": disease.short,
        "risk": history(choices, disease)[0], "organ": organ, "organ_disease": choices.pick(organ.diseases),
        "picture": symptoms, "technical": symptoms, "lay": [symptom.lay for symptom in symptoms],
        "gene": gene, "gene_disease": Rule("gene disease" if gene.diseases else "gene drug"),
        "bullets": stacked([symptom.name for symptom in symptoms], ["- "] * 3),
        "procedure": Rule("procedure yes" if disease.procedure.text else "procedure no"),
        "lab_note": Rule("lab note") if sign != "=" else "",
        "lab_word": "high" if sign == "+" else "low", **draw_lab(choices, lab, sign),
    }  # fmt: skip


def draw_lab(choices: Choices, lab: Lab, sign: str) -> dict[str, Any]:
    """Return a laboratory value with its normal range and what to say of it."""
    low, high = (f"{bound:.{lab.decimals}f}" for bound in (lab.low, lab.high))
    unit = f" {lab.unit}" if lab.unit else ""
    sign = "=" if choices.chance(0.3) else sign
    value = lab_value(choices, lab, sign) + unit
    return {"lab": lab, "value": value, "low": low, "high": high + unit, "level": Rule(f"level {sign}")}


def draw_task(document: Document, task: str) -> None:
    """Choose the facts that only one kind of task needs."""
    choices, facts = document.choices, document.facts
    disease, drug = facts["disease"], facts["drug"]
    if task == "compare":
        rivals = [other for other in disease.drugs if other.name != drug.name] or [
            unrelated(choices, disease)
        ]
        facts["rival"] = choices.pick(rivals)
        facts["both"] = Rule("both yes" if disease in facts["rival"].indications else "both no")
    elif task == "choice":
        draw_options(choices, facts)
    elif task == "true":
        draw_claim(choices, facts)
    elif task == "extract":
        draw_passage(document)
    elif task == "dose":
        weight, per_kg = choices.between(8, 96), choices.pick((2, 3, 4, 5, 8, 10, 15, 20))
        facts |= {"weight": weight, "per_kg": per_kg, "total": f"{weight * per_kg:,}"}


def unrelated(choices: Choices, disease: Disease) -> Drug:
    """Return a drug that is not for the disease."""
    drug = choices.pick(vocabulary().drug_list)
    while disease in drug.indications:
        drug = choices.pick(vocabulary().drug_list)
    return drug


def draw_options(choices: Choices, facts: dict[str, Any]) -> None:
    """Choose three or four drugs, only one of which is for the disease."""
    wrong: list[Drug] = []
    while len(wrong) < 3:
        other = unrelated(choices, facts["disease"])
        if other not in wrong:
            wrong.append(other)
    options = choices.sample([facts["drug"], *wrong[: choices.between(2, 3)]], 4)
    marks = [f"{letter}) " for letter in LETTERS]
    facts["options"] = stacked([option.name for option in options], marks, choices.pick(("\n", "\n", " ")))
    facts["letter"] = LETTERS[options.index(facts["drug"])]
    facts["wrong_use"] = list(dict.fromkeys(option.indications[0] for option in wrong))[:3]


def draw_claim(choices: Choices, facts: dict[str, Any]) -> None:
    """Choose a statement that is right half of the time, and the judgment."""
    words = vocabulary()
    claims: list[tuple[str, Any, list[Any], str]] = [
        ("class", facts["drug"], words.drug_list, "kind"),
        ("organ", facts["disease"].organ, list(words.organs.values()), "system"),
        ("gene", facts["gene"], list(words.genes.values()), "function"),
    ]
    kind, own, others, same = choices.pick(claims)
    claimed = own
    if choices.chance(0.5):
        while getattr(claimed, same) == getattr(own, same):
            claimed = choices.pick(others)
    facts["claimed"] = claimed
    facts["claim"] = Rule(f"claim {kind}")
    facts["verdict"] = Rule(f"verdict {kind} {'yes' if claimed is own else 'no'}")


def draw_passage(document: Document) -> None:
    """Choose a passage and the names of one type in it."""
    facts = document.facts
    kind = document.choices.pick(("Drug", "Disease", "Symptom"))
    passage = facts["passage"] = document.make("passage")
    found = dict.fromkeys(passage.text[start:end] for start, end, type_ in passage.spans if type_ == kind)
    known = vocabulary().names
    forms = [name if name in known else name[:1].lower() + name[1:] for name in found]
    names = [Phrase(form, ((0, len(form), kind),)) for form in forms]
    facts["wanted"] = kind.lower()
    facts["found"] = names or [Phrase("None")]

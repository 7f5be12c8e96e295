"""Research abstracts, and now and then a whole paper, with trials, cohorts, reviews, genes, tests and cases.

The sentences are in `phrases/abstracts.txt`, in the order background, methods, results, conclusions. Each
document has a label, what its conclusion says of the treatment studied: one of `LABELS`. It follows from the
text: "effective" (the outcomes improved), "not effective" (neither did), "mixed" (one of two did), "not
assessed" (no treatment was compared).
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

from sample_corpus.choices import Choices
from sample_corpus.english import Phrase
from sample_corpus.grammar import Document, Grammar, Rule
from sample_corpus.people import COMORBID, ROUTES, history, lab_value, patient, schedule
from sample_corpus.trials import p_value, result
from sample_corpus.vocabulary import Disease, Drug, Vocabulary, vocabulary

LABELS = ("effective", "not effective", "mixed", "not assessed")
COMPARISONS = ("trial", "trial", "trial", "cohort", "review")
OTHERS = ("gene", "risk", "test", "case")
EXCLUSIONS = (
    "severe renal impairment", "active cancer", "recent surgery", "hepatic failure",
    "a life expectancy of less than a year",
)  # fmt: skip
SEVERITIES = (
    "mild to moderate",
    "moderate to severe",
    "newly diagnosed",
    "symptomatic",
    "recurrent",
    "confirmed",
)
PAPERS = 0.012


class Introduced:
    """A disease that is named in full at first, then with its abbreviation, and later by that alone."""

    def __init__(self, disease: Disease, abbreviate: bool):
        self.disease = disease
        self.abbreviate = abbreviate and bool(disease.short.text)
        self.mentions = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.disease, name)

    @property
    def name(self) -> Phrase:
        """Name for the next mention."""
        self.mentions += 1
        full, short = self.disease.name, self.disease.short
        if not self.abbreviate or self.mentions == 1:
            return full
        if self.mentions > 2:
            return short
        start = len(full.text) + 2
        return Phrase(
            f"{full.text} ({short.text})", (*full.spans, (start, start + len(short.text), "Disease"))
        )


@cache
def grammar() -> Grammar:
    """Return the rules of abstracts."""
    return Grammar("abstracts", vocabulary().annotate)


def write(choices: Choices) -> tuple[Document, str]:
    """Return an abstract (60 to 350 words) or a paper (over 1,500), with its label."""
    document = Document(grammar(), choices)
    paper = choices.chance(PAPERS)
    label = choices.pick(LABELS[:3] if paper else LABELS)
    design = "trial" if paper else choices.pick(OTHERS if label == "not assessed" else COMPARISONS)
    document.facts = draw_facts(choices, label, design)
    if label != "not assessed":
        draw_results(document, label)
        placebo = document.facts["control"].text == "placebo"
        document.facts["trial_kind"] = document.make("trial kind placebo" if placebo else "trial kind")
    document.facts["disease"] = Introduced(document.facts["disease"], choices.chance(0.5))
    document.rule(f"{design}/title")
    document.write("\n\n" if paper else "\n")
    if paper:
        write_paper(document)
    else:
        write_abstract(document, design)
    return document, label


def write_abstract(document: Document, design: str) -> None:
    """Write the parts of an abstract, under headings or as one paragraph."""
    headings = document.choices.chance(0.6)
    capitals = document.choices.chance(0.5)
    fullness = document.choices.uniform(0.2, 1.0)
    latest = ""
    for name in grammar().outline(design):
        _, section, *part = name.split("/")
        if not part or (part[0].endswith("?") and not document.choices.chance(fullness)):
            continue
        if headings and section != latest:
            heading = section.upper() if capitals else section.capitalize()
            document.write(f"{chr(10) if latest else ''}{heading}: ")
        elif latest:
            document.write(" ")
        latest = section
        document.rule(name)


def draw_facts(choices: Choices, label: str, design: str) -> dict[str, Any]:
    """Return a disease, a drug for it (or, to find no benefit, for something else), and all small numbers."""
    words = vocabulary()
    disease = choices.common(words.treatable)
    drugs = choices.sample(disease.drugs, 2)
    drug = drugs[0] if label != "not effective" else unrelated_drug(choices, words, disease)
    person = patient(choices, disease)
    lab, sign = choices.pick(disease.labs)
    risk, *more = choices.sample(disease.risks, 2)
    people, ages, sex_share = population(choices, person)
    odds = choices.uniform(1.35, 4.2)
    width = choices.uniform(1.08, min(1.6, odds * 0.9))
    return {
        "disease": disease, "drug": with_route(drug), "control": control_arm(choices, drugs, label, design),
        "dose": choices.pick(drug.doses), "schedule": schedule(drug), "age": person.age,
        "man": person.man, "he": person.he, "his": person.his,
        "patient": "child" if person.child else "patient",
        "people": people, "ages": ages, "sex_share": sex_share,
        "finding": choices.pick(disease.findings), "gene": choices.pick(disease.genes), "lab": lab,
        "lab_before": lab_value(choices, lab, sign), "lab_after": lab_value(choices, lab, "="),
        "lab_change": Rule("lab change " + ("=" if label == "not effective" else sign)),
        "lab_word": {"+": "higher", "-": "lower", "=": "similar"}[sign],
        "adverse": choices.pick(drug.adverse), "history": history(choices, disease)[0],
        "risk": risk, "risk2": more[0] if more else Phrase("male sex"), "exclusion": choices.pick(EXCLUSIONS),
        "severity": choices.pick(SEVERITIES), "centers": choices.between(4, 84),
        "weeks": choices.pick((4, 6, 8, 12, 16, 24, 26, 48, 52)),
        "studies_n": choices.between(5, 38), "sens": choices.between(68, 98), "spec": choices.between(64, 97),
        "odds": f"{odds:.2f}", "odds_low": f"{odds / width:.2f}", "odds_high": f"{odds * width:.2f}",
        "cases": choices.between(24, 62), "controls": choices.between(6, 22),
        "p": p_value(choices.uniform(2.0, 4.5)),
        "ae1": choices.between(9, 28), "ae2": choices.between(2, 8),
        "sae1": choices.between(3, 9), "sae2": choices.between(3, 9),
        **draw_sizes(choices, design),
    }  # fmt: skip


def population(choices: Choices, person: SimpleNamespace) -> tuple[str, str, str]:
    """Return a name for the participants, their ages, and a clause on the share of women."""
    share = choices.between(31, 69)
    if person.child:
        return "children", "1 to 12 years", f"; {share}% were girls"
    people = choices.pick(
        ("patients", "patients", "participants", "adults" if person.age > 21 else "patients")
    )
    ages = choices.pick(("18 years or older", f"18 to {max(75, person.age + 3)} years"))
    return people, ages, choices.pick((f"; {share}% were women", "")) if person.any_sex else ""


def draw_sizes(choices: Choices, design: str) -> dict[str, Any]:
    """Return the numbers of patients, in all, per arm, and at the end."""
    scale = {"cohort": 3, "risk": 12, "review": 9}.get(design, 1)
    n1 = choices.between(38 * scale, 480 * scale)
    n2 = n1 + choices.between(-2 * scale, 2 * scale)
    done = choices.between(81, 98)
    total = n1 + n2
    return {"n1": n1, "n2": n2, "n": f"{total:,}", "n_done": round(total * done / 100), "done": done}


def with_route(drug: Drug) -> SimpleNamespace:
    """Return the drug with its route in words."""
    return SimpleNamespace(**vars(drug), route_word=ROUTES[drug.route])


def unrelated_drug(choices: Choices, words: Vocabulary, disease: Disease) -> Drug:
    """Return a drug that is not indicated for the disease and is taken more than once."""
    drug = choices.common(words.drug_list)
    while disease in drug.indications or drug.frequency == "once":
        drug = choices.common(words.drug_list)
    return drug


def control_arm(choices: Choices, drugs: list[Drug], label: str, design: str) -> Phrase:
    """Return placebo (in trials), usual care, or another drug for the same disease."""
    rivals = drugs[1:] if label != "not effective" else drugs
    if rivals and choices.chance(0.3):
        return rivals[0].name
    usual = ("usual care", "standard care")
    return Phrase(choices.pick(usual if design == "cohort" else ("placebo", "placebo", "standard care")))


def draw_results(document: Document, label: str) -> None:
    """Choose the results of both outcomes, and the sentences that state them and the verdict."""
    choices, facts = document.choices, document.facts
    outcomes = choices.sample(facts["disease"].outcomes, 2)
    for place, outcome in enumerate(outcomes):
        works = label == "effective" or (label == "mixed" and place == 0)
        facts["r"] = facts[f"r{place + 1}"] = result(choices, outcome, facts["n1"], facts["n2"], works)
        kind = f"result {'event' if facts['r'].event else 'score'} {'yes' if works else 'no'}"
        facts["primary" if place == 0 else "secondary"] = document.make(kind)
    facts["verdict"] = Rule(f"verdict {label}")


def write_paper(document: Document) -> None:
    """Write introduction, methods, results and discussion of a trial at full length."""
    choices, facts = document.choices, document.facts
    disease = facts["disease"].disease
    words = vocabulary()
    rivals = [drug for drug in disease.drugs if drug.name != facts["drug"].name]
    related = [*rivals, *choices.sample(words.drug_list, 7)]
    common = choices.sample(COMORBID, 9)
    labs = [*disease.labs, *((lab, "=") for lab in choices.sample(list(words.labs.values()), 10))]
    document.write("Abstract\n")
    write_abstract(document, "trial")
    document.write("\n\nIntroduction\n")
    for name in ("definition", "burden", "mechanism"):
        sentence(document, name)
    each(document, "paper gene", disease.genes)
    each(document, "paper option", choices.sample(rivals, 5))
    sentence(document, "trial/background/aim")
    document.write("\n\nMethods\n")
    for name in (
        "trial/methods/design",
        "trial/methods/eligibility?",
        "paper setting",
        "trial/methods/outcome",
    ):
        sentence(document, name)
    each(document, "paper assessment", disease.outcomes + [lab for lab, _ in labs[:4]])
    for name in ("paper size", "trial/methods/analysis?"):
        sentence(document, name)
    document.write("\n\nResults\n")
    for name in ("trial/results/patients?", "primary", "secondary"):
        sentence(document, name)
    document.write("\n")
    each(document, "paper finding", disease.findings)
    each(document, "paper symptom", disease.symptoms)
    for lab, sign in labs:
        facts |= {"item": lab, "before": lab_value(choices, lab, sign), "after": lab_value(choices, lab, "=")}
        sentence(document, "paper lab")
    document.write("\n")
    each(document, "paper subgroup", [*disease.risks, *(words.diseases[name].name for name in common)])
    each(document, "paper complication", disease.complications)
    sentence(document, "trial/results/safety?")
    document.write("\n\nDiscussion\n")
    sentence(document, "paper discussion")
    each(document, "paper earlier", choices.sample(disease.drugs, 8))
    document.write("\n")
    each(document, "paper option", rivals[:4])
    each(document, "paper drug", related[-9:])
    for name in ("paper limits", "paper summary"):
        sentence(document, name)


def each(document: Document, rule: str, values: list[Any]) -> None:
    """Write a sentence about each of the values."""
    for value in values:
        document.facts["item"] = value
        if isinstance(value, Drug):
            document.facts["item_route"] = f"{value.doses[0]} {schedule(value)}"
        sentence(document, rule)


def sentence(document: Document, name: str) -> None:
    """Write a fact or rule, after a blank."""
    document.write(" ")
    document.say("{" + name + "}") if name in document.facts else document.rule(name)

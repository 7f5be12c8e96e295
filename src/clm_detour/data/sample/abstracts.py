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

from clm_detour.data.sample.dice import Dice
from clm_detour.data.sample.english import Phrase
from clm_detour.data.sample.grammar import Document, Grammar, Rule
from clm_detour.data.sample.people import COMORBID, ROUTES, history, lab_value, patient, schedule
from clm_detour.data.sample.trials import p_value, result
from clm_detour.data.sample.vocabulary import Disease, Drug, Vocabulary, vocabulary

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
    """A disease named in full at first, then with its abbreviation, and from then on by that alone."""

    def __init__(self, disease: Disease, abbreviate: bool):
        self.disease = disease
        self.abbreviate = abbreviate and bool(disease.short.text)
        self.mentions = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.disease, name)

    @property
    def name(self) -> Phrase:
        """The name for the next mention."""
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
    """The rules of abstracts."""
    return Grammar("abstracts", vocabulary().annotate)


def write(dice: Dice) -> tuple[Document, str]:
    """One abstract (60 to 350 words) or paper (over 1,500), with its label."""
    document = Document(grammar(), dice)
    paper = dice.chance(PAPERS)
    label = dice.pick(LABELS[:3] if paper else LABELS)
    design = "trial" if paper else dice.pick(OTHERS if label == "not assessed" else COMPARISONS)
    document.facts = draw_facts(dice, label, design)
    if label != "not assessed":
        draw_results(document, label)
        placebo = document.facts["control"].text == "placebo"
        document.facts["trial_kind"] = document.make("trial kind placebo" if placebo else "trial kind")
    document.facts["disease"] = Introduced(document.facts["disease"], dice.chance(0.5))
    document.rule(f"{design}/title")
    document.write("\n\n" if paper else "\n")
    if paper:
        write_paper(document)
    else:
        write_abstract(document, design)
    return document, label


def write_abstract(document: Document, design: str) -> None:
    """The parts of an abstract: under headings, or as one paragraph."""
    headings = document.dice.chance(0.6)
    capitals = document.dice.chance(0.5)
    fullness = document.dice.uniform(0.2, 1.0)
    latest = ""
    for name in grammar().outline(design):
        _, section, *part = name.split("/")
        if not part or (part[0].endswith("?") and not document.dice.chance(fullness)):
            continue
        if headings and section != latest:
            heading = section.upper() if capitals else section.capitalize()
            document.write(f"{chr(10) if latest else ''}{heading}: ")
        elif latest:
            document.write(" ")
        latest = section
        document.rule(name)


def draw_facts(dice: Dice, label: str, design: str) -> dict[str, Any]:
    """A disease, a drug for it (or, to find no benefit, for something else), and all small numbers."""
    words = vocabulary()
    disease = dice.common(words.treatable)
    drugs = dice.sample(disease.drugs, 2)
    drug = drugs[0] if label != "not effective" else unrelated_drug(dice, words, disease)
    person = patient(dice, disease)
    lab, sign = dice.pick(disease.labs)
    risk, *more = dice.sample(disease.risks, 2)
    people, ages, sex_share = population(dice, person)
    odds = dice.uniform(1.35, 4.2)
    width = dice.uniform(1.08, min(1.6, odds * 0.9))
    return {
        "disease": disease, "drug": with_route(drug), "control": control_arm(dice, drugs, label, design),
        "dose": dice.pick(drug.doses), "schedule": schedule(drug), "age": person.age,
        "man": person.man, "he": person.he, "his": person.his,
        "patient": "child" if person.child else "patient",
        "people": people, "ages": ages, "sex_share": sex_share,
        "finding": dice.pick(disease.findings), "gene": dice.pick(disease.genes), "lab": lab,
        "lab_before": lab_value(dice, lab, sign), "lab_after": lab_value(dice, lab, "="),
        "lab_change": Rule("lab change " + ("=" if label == "not effective" else sign)),
        "lab_word": {"+": "higher", "-": "lower", "=": "similar"}[sign],
        "adverse": dice.pick(drug.adverse), "history": history(dice, disease)[0],
        "risk": risk, "risk2": more[0] if more else Phrase("male sex"), "exclusion": dice.pick(EXCLUSIONS),
        "severity": dice.pick(SEVERITIES), "centers": dice.between(4, 84),
        "weeks": dice.pick((4, 6, 8, 12, 16, 24, 26, 48, 52)),
        "studies_n": dice.between(5, 38), "sens": dice.between(68, 98), "spec": dice.between(64, 97),
        "odds": f"{odds:.2f}", "odds_low": f"{odds / width:.2f}", "odds_high": f"{odds * width:.2f}",
        "cases": dice.between(24, 62), "controls": dice.between(6, 22), "p": p_value(dice.uniform(2.0, 4.5)),
        "ae1": dice.between(9, 28), "ae2": dice.between(2, 8),
        "sae1": dice.between(3, 9), "sae2": dice.between(3, 9),
        **draw_sizes(dice, design),
    }  # fmt: skip


def population(dice: Dice, person: SimpleNamespace) -> tuple[str, str, str]:
    """How those studied are called, their ages, and a clause on how many were women."""
    share = dice.between(31, 69)
    if person.child:
        return "children", "1 to 12 years", f"; {share}% were girls"
    people = dice.pick(("patients", "patients", "participants", "adults" if person.age > 21 else "patients"))
    ages = dice.pick(("18 years or older", f"18 to {max(75, person.age + 3)} years"))
    return people, ages, dice.pick((f"; {share}% were women", "")) if person.any_sex else ""


def draw_sizes(dice: Dice, design: str) -> dict[str, Any]:
    """The numbers of patients, in all, per arm, and at the end."""
    scale = {"cohort": 3, "risk": 12, "review": 9}.get(design, 1)
    n1 = dice.between(38 * scale, 480 * scale)
    n2 = n1 + dice.between(-2 * scale, 2 * scale)
    done = dice.between(81, 98)
    total = n1 + n2
    return {"n1": n1, "n2": n2, "n": f"{total:,}", "n_done": round(total * done / 100), "done": done}


def with_route(drug: Drug) -> SimpleNamespace:
    """The drug with its route in words."""
    return SimpleNamespace(**vars(drug), route_word=ROUTES[drug.route])


def unrelated_drug(dice: Dice, words: Vocabulary, disease: Disease) -> Drug:
    """A drug that is not indicated for the disease and is taken more than once."""
    drug = dice.common(words.drug_list)
    while disease in drug.indications or drug.frequency == "once":
        drug = dice.common(words.drug_list)
    return drug


def control_arm(dice: Dice, drugs: list[Drug], label: str, design: str) -> Phrase:
    """Placebo (in trials), usual care, or another drug for the same disease."""
    rivals = drugs[1:] if label != "not effective" else drugs
    if rivals and dice.chance(0.3):
        return rivals[0].name
    usual = ("usual care", "standard care")
    return Phrase(dice.pick(usual if design == "cohort" else ("placebo", "placebo", "standard care")))


def draw_results(document: Document, label: str) -> None:
    """The results of the first and second outcome and the sentences that state them and the verdict."""
    dice, facts = document.dice, document.facts
    outcomes = dice.sample(facts["disease"].outcomes, 2)
    for place, outcome in enumerate(outcomes):
        works = label == "effective" or (label == "mixed" and place == 0)
        facts["r"] = facts[f"r{place + 1}"] = result(dice, outcome, facts["n1"], facts["n2"], works)
        kind = f"result {'event' if facts['r'].event else 'score'} {'yes' if works else 'no'}"
        facts["primary" if place == 0 else "secondary"] = document.make(kind)
    facts["verdict"] = Rule(f"verdict {label}")


def write_paper(document: Document) -> None:
    """Introduction, methods, results and discussion of a trial at full length."""
    dice, facts = document.dice, document.facts
    disease = facts["disease"].disease
    words = vocabulary()
    rivals = [drug for drug in disease.drugs if drug.name != facts["drug"].name]
    related = [*rivals, *dice.sample(words.drug_list, 7)]
    common = dice.sample(COMORBID, 9)
    labs = [*disease.labs, *((lab, "=") for lab in dice.sample(list(words.labs.values()), 10))]
    document.write("Abstract\n")
    write_abstract(document, "trial")
    document.write("\n\nIntroduction\n")
    for name in ("definition", "burden", "mechanism"):
        sentence(document, name)
    each(document, "paper gene", disease.genes)
    each(document, "paper option", dice.sample(rivals, 5))
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
        facts |= {"item": lab, "before": lab_value(dice, lab, sign), "after": lab_value(dice, lab, "=")}
        sentence(document, "paper lab")
    document.write("\n")
    each(document, "paper subgroup", [*disease.risks, *(words.diseases[name].name for name in common)])
    each(document, "paper complication", disease.complications)
    sentence(document, "trial/results/safety?")
    document.write("\n\nDiscussion\n")
    sentence(document, "paper discussion")
    each(document, "paper earlier", dice.sample(disease.drugs, 8))
    document.write("\n")
    each(document, "paper option", rivals[:4])
    each(document, "paper drug", related[-9:])
    for name in ("paper limits", "paper summary"):
        sentence(document, name)


def each(document: Document, rule: str, values: list[Any]) -> None:
    """A sentence about each of the values."""
    for value in values:
        document.facts["item"] = value
        if isinstance(value, Drug):
            document.facts["item_route"] = f"{value.doses[0]} {schedule(value)}"
        sentence(document, rule)


def sentence(document: Document, name: str) -> None:
    """A fact or rule, after a blank."""
    document.write(" ")
    document.say("{" + name + "}") if name in document.facts else document.rule(name)

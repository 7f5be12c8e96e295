"""The medicine that the corpus knows: diseases, drugs, genes, organs, symptoms, laboratory tests, outcomes.

The facts are fixed (a drug has its class, action and indications; a disease its organ, symptoms, findings,
genes), so that a language model can learn them. They come from general medical knowledge, shortened: they
serve to train a toy, and are no source for treating anyone.

What is written into texts is held as `Phrase`, with the names in it marked with their entity type.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property

from sample_corpus.choices import Choices
from sample_corpus.english import Phrase
from sample_corpus.tables import annotator, items, read_table

Phrases = list[Phrase]


@dataclass(eq=False)
class Organ:
    """A part of the body."""

    name: Phrase
    system: Phrase
    function: Phrase
    diseases: list[Disease] = field(default_factory=list, repr=False)


@dataclass(eq=False)
class Symptom:
    """A complaint, in the words of a physician, of a patient (`lay`), and of a hurried note (`brief`)."""

    name: Phrase
    lay: Phrase
    brief: Phrase


@dataclass(eq=False)
class Gene:
    """A gene, its protein, and what the protein does."""

    name: Phrase
    protein: Phrase
    function: Phrase
    diseases: list[Disease] = field(default_factory=list, repr=False)
    drugs: list[Drug] = field(default_factory=list, repr=False)


@dataclass(eq=False)
class Lab:
    """A laboratory test: normal range, the range of what is seen at all, and decimals."""

    name: Phrase
    brief: str
    unit: str
    low: float
    high: float
    bottom: float
    top: float
    decimals: int


@dataclass(eq=False)
class Outcome:
    """A measure of a trial: a `good` or `bad` event (base: percent), or a score better `low` or `high`."""

    name: Phrase
    kind: str
    unit: str
    base: float
    spread: float


@dataclass(eq=False)
class Finding:
    """A diagnostic test and what it shows in a disease."""

    test: Phrase
    result: Phrase


@dataclass(eq=False)
class Disease:
    """A disease with all that is known of it; `labs` pairs a test with "+", "-" or "=" (normal)."""

    name: Phrase
    short: Phrase
    kind: Phrase
    nature: Phrase
    specialty: str
    organ: Organ
    symptoms: list[Symptom]
    risks: Phrases
    findings: list[Finding]
    labs: list[tuple[Lab, str]]
    genes: list[Gene]
    outcomes: list[Outcome]
    complications: Phrases
    procedure: Phrase
    drugs: list[Drug] = field(default_factory=list, repr=False)


@dataclass(eq=False)
class Drug:
    """A drug, how it acts, what it is for, how it is given, and its adverse effects."""

    name: Phrase
    kind: Phrase
    action: Phrase
    indications: list[Disease]
    doses: list[str]
    route: str
    frequency: str
    adverse: list[Symptom]
    target: Gene | None


class Vocabulary:
    """All tables, linked, in an order that stands for how common a thing is."""

    def __init__(self) -> None:
        self.tables = {name: read_table(name) for name in TABLES}
        self.annotate = cache(annotator(self.names))
        self.organs = {row["name"]: Organ(*self.three(row)) for row in self.tables["anatomy"]}
        self.genes = {row["symbol"]: Gene(*self.three(row)) for row in self.tables["genes"]}
        self.labs = {row["code"]: self.lab(row) for row in self.tables["labs"]}
        self.outcomes = {row["name"]: self.outcome(row) for row in self.tables["outcomes"]}
        self.symptoms = {name: self.symptom(name) for name in self.symptom_names}
        self.diseases = {row["name"]: self.disease(row) for row in self.by_frequency("diseases")}
        self.drugs = {row["name"]: self.drug(row) for row in self.by_frequency("drugs")}

    @cached_property
    def treatable(self) -> list[Disease]:
        """Return the diseases for which there is a drug, common ones first."""
        return [disease for disease in self.diseases.values() if disease.drugs]

    @cached_property
    def drug_list(self) -> list[Drug]:
        """Return all drugs, common ones first."""
        return list(self.drugs.values())

    @cached_property
    def names(self) -> dict[str, str]:
        """Return every name with its entity type. A name in two tables takes the type written last here."""
        names = dict.fromkeys(self.symptom_names, "Symptom")
        names |= dict.fromkeys((row["name"] for row in self.tables["anatomy"]), "Anatomy")
        names |= dict.fromkeys((row["symbol"] for row in self.tables["genes"]), "Gene")
        complications = {item for row in self.tables["diseases"] for item in items(row["complications"])}
        names |= dict.fromkeys(sorted(complications - names.keys()), "Disease")
        names |= dict.fromkeys(
            (row[key] for row in self.tables["diseases"] for key in ("name", "short")), "Disease"
        )
        names |= dict.fromkeys((row["name"] for row in self.tables["drugs"]), "Drug")
        names.pop("")
        return names

    @cached_property
    def symptom_names(self) -> list[str]:
        """Return all symptoms and adverse effects."""
        named = [row["name"] for row in self.tables["symptoms"]]
        named += [item for row in self.tables["diseases"] for item in items(row["symptoms"])]
        named += [item for row in self.tables["drugs"] for item in items(row["adverse"])]
        return list(dict.fromkeys(named))

    def by_frequency(self, table: str) -> list[dict[str, str]]:
        """Return a table in a fixed random order, so that what is common is spread over all specialties."""
        rows = self.tables[table]
        return Choices("frequency", table).sample(rows, len(rows))

    def phrases(self, texts: Iterable[str]) -> Phrases:
        """Return texts with their entities marked."""
        return [self.annotate(text) for text in texts]

    def three(self, row: dict[str, str]) -> tuple[Phrase, Phrase, Phrase]:
        """Return a row of three cells."""
        first, second, third = self.phrases(row.values())
        return first, second, third

    def symptom(self, name: str) -> Symptom:
        """Return a symptom; without an entry of its own all its forms are the name."""
        row = next(
            (row for row in self.tables["symptoms"] if row["name"] == name), {"lay": "", "abbreviation": ""}
        )
        forms = (name, row["lay"] or name, row["abbreviation"] or name)
        return Symptom(*(Phrase(form, ((0, len(form), "Symptom"),)) for form in forms))

    def lab(self, row: dict[str, str]) -> Lab:
        """Return a laboratory test from its row."""
        low, high, bottom, top = (float(row[key]) for key in ("low", "high", "bottom", "top"))
        name = self.annotate(row["name"])
        return Lab(name, row["abbreviation"], row["unit"], low, high, bottom, top, int(row["decimals"]))

    def outcome(self, row: dict[str, str]) -> Outcome:
        """Return a trial outcome from its row."""
        name = self.annotate(row["name"])
        return Outcome(name, row["kind"], row["unit"], float(row["base"]), float(row["spread"] or 0))

    def disease(self, row: dict[str, str]) -> Disease:
        """Return a disease from its row, linked to its organ and genes."""
        name, short, kind, nature, procedure = self.phrases(
            row[key] for key in ("name", "short", "kind", "nature", "procedure")
        )
        disease = Disease(
            name, short, kind, nature, row["specialty"], self.organs[row["organ"]],
            [self.symptoms[item] for item in items(row["symptoms"])],
            self.phrases(items(row["risks"])),
            [Finding(*self.phrases(item.split("=", 1))) for item in items(row["findings"])],
            [(self.labs[item[:-1]], item[-1]) for item in items(row["labs"])],
            [self.genes[item] for item in items(row["genes"])],
            [self.outcomes[item] for item in items(row["outcomes"])],
            self.phrases(items(row["complications"])), procedure,
        )  # fmt: skip
        disease.organ.diseases.append(disease)
        for gene in disease.genes:
            gene.diseases.append(disease)
        return disease

    def drug(self, row: dict[str, str]) -> Drug:
        """Return a drug from its row, linked to its indications and target."""
        name, kind, action = self.phrases(row[key] for key in ("name", "class", "action"))
        drug = Drug(
            name, kind, action, [self.diseases[item] for item in items(row["indications"])],
            items(row["doses"]), row["route"], row["frequency"],
            [self.symptoms[item] for item in items(row["adverse"])], self.genes.get(row["gene"]),
        )  # fmt: skip
        for disease in drug.indications:
            disease.drugs.append(drug)
        if drug.target:
            drug.target.drugs.append(drug)
        return drug


TABLES = ("anatomy", "diseases", "drugs", "genes", "labs", "outcomes", "symptoms")


@cache
def vocabulary() -> Vocabulary:
    """Return the vocabulary, read once."""
    return Vocabulary()

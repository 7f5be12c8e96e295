"""The sample corpus is deterministic, exactly annotated, consistent with its tables, and varied."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sample_corpus.abstracts import LABELS
from sample_corpus.choices import Choices
from sample_corpus.documents import SOURCES, generate
from sample_corpus.english import Phrase, a_or_an, is_plural
from sample_corpus.general import grammar
from sample_corpus.grammar import Document
from sample_corpus.vocabulary import vocabulary

pytestmark = pytest.mark.slow
COUNT = 600
DOMAIN = tuple(source for source in SOURCES if source != "general")
TYPES = {"Disease", "Drug", "Gene", "Anatomy", "Symptom"}
NAMES = vocabulary().names
BY_LOWER = {name.lower(): kind for name, kind in NAMES.items()}
Sample = dict[str, Any]


@cache
def documents(source: str) -> list[Sample]:
    return list(generate(source, COUNT, seed=5))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def whole_words(names: list[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{'|'.join(re.escape(name) for name in names)})(?!\w)")


# Determinism


def test_the_same_seed_writes_the_same_documents_and_another_seed_other_ones():
    for source in SOURCES:
        first, again, other = (list(generate(source, 15, seed)) for seed in (1, 1, 2))
        assert first == again
        assert first != other


def test_a_document_depends_on_its_place_and_not_on_how_many_are_made():
    for source in SOURCES:
        assert list(generate(source, 7, seed=5)) == documents(source)[:7]


# Entities


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SOURCES), st.integers(0, COUNT - 1))
def test_spans_are_exact_sorted_and_apart(source, index):
    document = documents(source)[index]
    end_of_last = 0
    for start, end, kind in document["entities"]:
        surface = document["text"][start:end]
        assert end_of_last <= start < end <= len(document["text"])
        assert surface == surface.strip()
        assert kind in (TYPES if source != "general" else {"Person", "Place"})
        end_of_last = end


@pytest.mark.parametrize("source", DOMAIN)
def test_an_entity_is_a_name_of_its_type_in_the_vocabulary(source):
    forms = {form.text for symptom in vocabulary().symptoms.values() for form in (symptom.lay, symptom.brief)}
    for document in documents(source):
        for start, end, kind in document["entities"]:
            surface = document["text"][start:end]
            known = BY_LOWER.get(surface.lower())
            assert known == kind or (kind == "Symptom" and upper_or_same(surface, forms)), surface


def upper_or_same(surface: str, forms: set[str]) -> bool:
    return surface in forms or surface[:1].lower() + surface[1:] in forms


@pytest.mark.parametrize("source", DOMAIN)
def test_no_mention_of_a_drug_or_disease_is_left_without_a_span(source):
    named = whole_words(
        [name for name, kind in NAMES.items() if kind in ("Drug", "Disease") and len(name) > 5]
    )
    for document in documents(source):
        covered = {place for start, end, _ in document["entities"] for place in range(start, end)}
        for match in named.finditer(document["text"]):
            assert match.start() in covered, document["text"][match.start() - 40 : match.end() + 40]


def test_general_prose_names_no_disease_drug_gene_or_symptom():
    medical = [name for name, kind in NAMES.items() if kind != "Anatomy"]
    medical += ["patient", "patients", "doctor", "hospital", "clinical", "treatment", "medicine", "mg"]
    named = whole_words(sorted(medical, key=len, reverse=True))
    for document in documents("general"):
        assert not named.search(document["text"]), named.search(document["text"])


# Facts


@pytest.mark.parametrize("source", DOMAIN)
def test_what_a_disease_is_treated_with_is_in_the_tables(source):
    drugs, diseases = vocabulary().drugs, vocabulary().diseases
    claims = 0
    for document in documents(source):
        for match in re.finditer(r"[^.?!\n:]*\b(?:is|are) (?:\w+ )?treated with [^.;\n]*", document["text"]):
            found = spans_within(document, match.start(), match.end())
            named = [diseases[name] for name, kind in found if kind == "Disease" and name in diseases]
            for name, kind in found:
                if kind == "Drug" and named:
                    assert named[0] in drugs[name].indications, match.group()
                    claims += 1
    assert claims > 50 or source != "instructions"


def spans_within(document: Sample, low: int, high: int) -> list[tuple[str, str]]:
    surfaces = [
        (document["text"][s:e], kind) for s, e, kind in document["entities"] if low <= s and e <= high
    ]
    return [(text if text in NAMES else text[:1].lower() + text[1:], kind) for text, kind in surfaces]


def test_a_drug_that_is_found_effective_is_indicated_and_one_without_effect_is_not():
    drugs = vocabulary().drugs
    checked = Counter()
    for document in documents("abstracts"):
        title = document["text"].split("\n")[0]
        found = spans_within(document, 0, len(title))
        named = [name for name, kind in found if kind == "Drug"]
        known = [vocabulary().diseases.get(name) for name, kind in found if kind == "Disease"]
        if document["label"] in ("effective", "not effective") and named and known and known[-1]:
            assert (known[-1] in drugs[named[0]].indications) == (document["label"] == "effective"), title
            checked[document["label"]] += 1
    assert min(checked.values()) > 50


def test_the_kind_and_action_of_a_drug_are_those_in_the_tables():
    drugs, checked = vocabulary().drugs, 0
    for document in documents("abstracts"):
        for name, kind, action in re.findall(
            r"([A-Z][\w-]+) is an? ([^.,;]+?) that ([^.]+)\.", document["text"]
        ):
            drug = drugs.get(name[:1].lower() + name[1:])
            if drug:
                assert (kind, action) == (drug.kind.text, drug.action.text)
                checked += 1
    assert checked > 50


def test_counts_percentages_and_significance_of_a_trial_agree():
    checked = 0
    for document in documents("abstracts"):
        for a, n, share in re.findall(r"in ([\d]+) of (\d+) [a-z]+ \((\d+\.\d)%\)", document["text"]):
            assert f"{100 * int(a) / int(n):.1f}" == share
            checked += 1
        for low, high, sign, p in re.findall(
            r"CI,? (\d\.\d\d)(?:–| to )(\d\.\d\d); [pP] ([<=]) (0\.\d+)", document["text"]
        ):
            crosses = float(low) < 1.0 < float(high)
            assert crosses == (sign == "=" and float(p) > 0.05) or "1.00" in (low, high)
    assert checked > 50


def test_the_label_of_an_abstract_can_be_read_off_its_text():
    without = re.compile(
        r"did not|no better|not more effective|failed to|no benefit|do not support|no evidence"
    )
    seen = Counter()
    for document in documents("abstracts"):
        end = document["text"][-330:]
        seen[document["label"]] += 1
        if document["label"] == "not effective":
            assert without.search(end), end
        if document["label"] == "effective":
            assert not re.search(r"no evidence|do not support|no benefit|failed to", end), end
        if document["label"] == "mixed":
            assert re.search(r"but|although|however|limited to|seen only for", end), end
    assert set(seen) == set(LABELS)
    assert min(seen.values()) > COUNT / 8


def test_every_name_in_a_table_is_known_and_there_are_hundreds():
    known = vocabulary()  # building it looks up every link between the tables
    assert len(known.diseases) >= 120
    assert len(known.drugs) >= 120
    assert len(known.genes) >= 80
    for disease in known.diseases.values():
        assert disease.symptoms
        assert disease.findings
        assert len(disease.outcomes) >= 2
        assert disease.drugs or disease.procedure.text
    for lab in known.labs.values():
        assert lab.bottom <= lab.low < lab.high < lab.top


# Form


def test_an_instruction_is_its_prompt_and_its_response():
    for document in documents("instructions"):
        assert document["text"] == f"{document['prompt']}\n{document['response']}"
        assert document["prompt"].strip()
        assert document["response"].strip()


@pytest.mark.parametrize("source", SOURCES)
def test_no_template_shows_through(source):
    template = re.compile(r"[{}|]|\b[a-z_]+\.[a-z]+\b|  |\n\n\n| [.,;)]|\.\.|,,")
    wrong_a = re.compile(r"(?<!emophilia )\b[Aa] (?:[aei]|o(?!n[ec]))[a-z]+")
    wrong_an = re.compile(r"\b[Aa]n (?!hon|hou|hei)[bcdfgj-np-tvwxz][a-z]{2}")
    for document in documents(source):
        for pattern in (template, wrong_a, wrong_an):
            assert not pattern.search(document["text"]), pattern.search(document["text"])
        assert document["text"] == document["text"].strip()


@pytest.mark.parametrize("source", ["general", "abstracts"])
def test_a_sentence_of_prose_begins_with_a_capital(source):
    small = re.compile(r"(?:[^.]{3}[.!?] |\n)[a-z]")
    for document in documents(source):
        assert not small.search(document["text"]), small.search(document["text"])


def test_ids_are_unique():
    ids = [document["id"] for source in SOURCES for document in documents(source)]
    assert len(set(ids)) == len(ids)


def test_a_unigram_classifier_tells_the_sources_apart():
    half = COUNT // 2
    counts = {s: Counter(w for d in documents(s)[:half] for w in words(d["text"])) for s in SOURCES}
    size = len(set().union(*counts.values()))

    def score(source: str, text: str) -> float:
        total = sum(counts[source].values()) + size
        return sum(math.log((counts[source][word] + 1) / total) for word in words(text))

    held_out = [(source, document["text"]) for source in SOURCES for document in documents(source)[half:]]
    right = sum(max(SOURCES, key=lambda s: score(s, text)) == source for source, text in held_out)
    assert right > 0.97 * len(held_out)


@pytest.mark.parametrize("source", SOURCES)
def test_documents_are_varied(source):
    texts = [document["text"] for document in documents(source)]
    assert len(set(texts)) >= 0.995 * len(texts)
    assert len({" ".join(text.split()[:8]) for text in texts}) > 0.8 * len(texts)
    assert len({word for text in texts for word in words(text)}) > 1500


def test_exact_duplicates_are_rare_over_all_sources():
    texts = [document["text"] for source in SOURCES for document in generate(source, 1200, seed=9)]
    assert len(texts) - len(set(texts)) <= 0.001 * len(texts)


def test_lengths_vary_from_a_line_to_more_than_a_context_of_two_thousand_tokens():
    lengths = {source: sorted(len(d["text"].split()) for d in documents(source)) for source in SOURCES}
    assert all(values[-1] > 3 * values[len(values) // 10] for values in lengths.values())
    assert 80 < sum(map(sum, lengths.values())) / (COUNT * len(SOURCES)) < 160
    assert max(lengths["abstracts"]) > 1500
    assert max(lengths["notes"]) > 1500
    assert lengths["general"][0] < 40 < 400 < lengths["general"][-1]


# The grammar


def written(template: str, **facts: object) -> Document:
    document = Document(grammar(), Choices("test"), facts)
    document.say(template)
    return document


def test_slots_take_facts_capitals_attributes_and_numbers():
    thing = Phrase("iron", ((0, 4, "Thing"),))
    document = written("{Thing} and {thing}: {5-5}, {1.50-1.50}.", thing=thing)
    assert document.text == "Iron and iron: 5, 1.50."
    assert document.spans == [(0, 4, "Thing"), (9, 13, "Thing")]


def test_lists_are_joined_and_agree_with_their_verb():
    names = ["x", "y", "z"]
    assert written("{names all} {names:is/are}", names=names).text == "x, y, and z are"
    assert written("{names all ,}", names=names).text == "x, y, z"
    assert written("{names all or} {names:is/are}", names=["x"]).text == "x is"
    assert sorted(written("{names 2}", names=names).text.split(" and "))[0] in names


def test_the_article_follows_the_next_word_even_across_an_empty_choice():
    assert written("{a} {adjective}{ very|} {noun}", adjective="", noun="owl").text == "an owl"
    assert written("{A} {noun}", noun="unit").text == "A unit"
    spoken = {
        "SGLT2 inhibitor": "an", "PD-1": "a", "8-week": "an", "18-year-old": "an", "80-mg": "an",
        "hour": "an", "European": "a", "MRI": "an", "ulcer": "an", "one-day": "a", "TNF": "a", "urinary": "a",
    }  # fmt: skip
    assert {word: a_or_an(word) for word in spoken} == spoken


def test_plurals_are_told_from_singulars_that_end_in_s():
    names = ("lungs", "psoriasis", "type 2 diabetes", "days of rest", "loss of days")
    assert [name for name in names if is_plural(name)] == ["lungs", "days of rest"]


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_no_alternative_comes_back_before_all_were_used(seed):
    document = Document(grammar(), Choices(seed))
    months = [document.make("month").text for _ in range(12)]
    assert len(set(months)) == 12


@given(st.lists(st.integers(-5, 5)), st.integers(0, 9), st.integers())
def test_a_sample_takes_different_items_of_the_list(items, count, seed):
    taken = Choices(seed).sample(list(enumerate(items)), count)
    assert len(taken) == len(set(taken)) == min(count, len(items))

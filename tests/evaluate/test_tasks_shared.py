"""The registered tasks on their real data sets: every count is the published one, every offset is right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from clm_detour.data.decontaminate import SharedRuns
from clm_detour.data.sources.evaluation import evaluation_texts
from clm_detour.evaluate.formats.brat import Brat
from clm_detour.evaluate.formats.format import trimmed
from clm_detour.evaluate.metrics import score, strict_chunks, tags
from clm_detour.evaluate.tasks import TASKS, Splits, Task, load
from clm_detour.evaluate.tasks.overview import counts, differences
from clm_detour.evaluate.tasks.splits import shared_ids, shared_texts

ROOT = Path(__file__).parents[2]
SENTENCES = ("AnatEM", "BC5CDR", "JNLPBA", "NCBI-disease")
NOTES = ("SocialHistory", "EMEA", "Medline", "MEDDOCAN")
PRESENT = ("ChemProt", "GAD", "HoC", *SENTENCES, *NOTES)
pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def loaded(shared_data: Path) -> dict[str, tuple[Task, Splits]]:
    return {name: load(TASKS[name], shared_data / "tasks") for name in PRESENT}


@pytest.mark.parametrize("name", PRESENT)
def test_every_count_is_the_published_one(loaded, name):
    assert len(TASKS[name].published) >= 3
    assert differences(*loaded[name]) == []


def test_labels_are_as_many_as_published(loaded):
    chemprot, gad, hoc = (counts(*loaded[name]) for name in ("ChemProt", "GAD", "HoC"))
    assert [chemprot[f"{split}.positive"] for split in ("train", "validation", "test")] == [4132, 2412, 3441]
    assert gad["labels.0"] + gad["labels.1"] == 5330
    assert sum(name.startswith("labels.") for name in hoc) == 10
    assert counts(*loaded["SocialHistory"])["annotations"] == 3778


@pytest.mark.parametrize("name", NOTES)
def test_offsets_lead_to_the_annotated_words_piece_by_piece(loaded, shared_data, name):
    task, splits = loaded[name]
    there = {(split, one.id): one for split, documents in splits.items() for one in documents}
    folder = shared_data / "tasks" / ("QUAERO" if name in ("EMEA", "Medline") else name)
    form = Brat(task.read.formats[0].files)
    in_pieces = quoted_wrongly = 0
    for split in splits:
        for file in form.find(folder, split):
            (example,) = form.examples(file, split)
            text = there[split, file.stem].text
            assert text.encode() == file.read_bytes()
            for annotation in example.annotations:
                words = " ".join(text[start:end] for start, end in annotation.fragments)
                quoted_wrongly += words != annotation.text
                in_pieces += len(annotation.fragments) > 1
            spans = [one.fragments or ((one.start, one.end),) for one in there[split, file.stem].entities]
            annotated = (sorted(one.fragments) for one in example.annotations)
            assert {tuple(trimmed(text, *piece) for piece in pieces) for pieces in annotated} >= set(spans)
    assert quoted_wrongly == {"SocialHistory": 10}.get(name, 0)
    assert in_pieces == {"EMEA": 84, "Medline": 57}.get(name, 0)


@pytest.mark.parametrize("name", PRESENT)
def test_no_document_is_in_two_splits_but_where_the_set_has_it_so(loaded, name):
    task, splits = loaded[name]
    assert task.disjoint == (not shared_ids(splits))


def test_overlaps_that_the_sets_have_are_found(loaded):
    assert {pair: len(both) for pair, both in shared_ids(loaded["JNLPBA"][1]).items()} == {
        ("train", "test"): 10
    }
    assert {pair: len(both) for pair, both in shared_texts(loaded["SocialHistory"][1]).items()} == {
        ("train", "test"): 9
    }
    assert len(shared_texts(loaded["GAD"][1])["train", "validation"]) == 39
    assert shared_texts(loaded["HoC"][1]) == {}


@pytest.mark.parametrize("name", SENTENCES)
def test_tags_hold_all_entities_of_a_sentence_and_the_answer_key_scores_one(loaded, name):
    task, splits = loaded[name]
    for document in splits["test"]:
        assert len(strict_chunks(tags(document))) == len(document.entities)
        for entity in document.entities:
            assert (entity.start in {start for start, _ in document.words}) & (
                entity.end in {end for _, end in document.words}
            )
    perfect = score(task, splits["test"], splits["test"])
    assert (perfect["micro_f1"], perfect["tag_f1"]) == (1, 1)


def test_decontamination_finds_every_test_document_of_every_task(loaded, shared_data):
    globs = re.search(r"decontaminate: (\[.*\])", (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8"))
    paths = [path.replace("data/tasks", f"{shared_data}/tasks") for path in json.loads(globs[1])]
    evaluation = SharedRuns(evaluation_texts(paths), 13)
    looked_for = 0
    for _, splits in loaded.values():
        for document in splits["test"][::20]:
            if len(re.findall(r"[^\W_]+", document.text.splitlines()[0])) >= 13:
                looked_for += 1
                assert evaluation.in_text(document.text)
    assert looked_for > 500

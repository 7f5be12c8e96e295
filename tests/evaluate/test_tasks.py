"""Tasks on made-up data in the true forms: every check of the data, splits that are drawn, tasks from YAML, and the command."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
import yaml

from clm_detour.cli.main import app
from clm_detour.config.loading import load_evaluation
from clm_detour.evaluate.command import known_tasks
from clm_detour.evaluate.tasks import METRICS, TASKS, Document, Entity, from_yaml, load, locate
from clm_detour.evaluate.tasks.left_out import of_data
from clm_detour.evaluate.tasks.overview import counts, differences, print_overview
from clm_detour.evaluate.tasks.registry import LIBRARY, PAPER, TaskLibrary
from clm_detour.evaluate.tasks.splits import hold_out, origin, shared_ids, shared_texts
from clm_detour.evaluate.tasks.yaml_task import FORMAT_KEYS, FORMATS, TASK_KEYS
from clm_detour.utils.errors import UserError

ROOT = Path(__file__).parents[2]


def written(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="")
    return path


def brat(folder: Path, **documents: tuple[str, str]) -> None:
    """`split__name=(text, annotations)` as files."""
    for name, (text, lines) in documents.items():
        split, _, stem = name.partition("__")
        written(folder / split / f"{stem}.txt", text)
        written(folder / split / f"{stem}.ann", lines)


FINE = ("Fièvre et toux.", "T1\tSign 0 6\tFièvre\nT2\tSign 10 14\ttoux\n")
EVERYWHERE = {"train__a": FINE, "dev__b": FINE, "test__c": FINE}
SPLIT_FOLDERS = ("train", "dev", "test")
SIGNS = {"form": "brat", "kind": "entities", "labels": ["Sign"], "disjoint": False}


def test_the_papers_nineteen_tasks_are_registered_in_the_order_of_its_tables():
    assert list(PAPER) == [
        "ChemProt",
        "Phenotype",
        "COS",
        "SocialHistory",
        "DEID",
        "AnatEM",
        "BC5CDR",
        "JNLPBA",
        "NCBI-disease",
        "GAD",
        "HoC",
        "FRACCO-30",
        "FRACCO-100",
        "CANTEMIST",
        "DISTEMIST",
        "MedDialog",
        "DiaMED",
        "EMEA",
        "Medline",
    ]
    assert [TASKS[name].language for name in PAPER] == ["en"] * 11 + ["fr"] * 8


def test_a_registered_task_is_parsed_when_it_is_first_used():
    library = TaskLibrary()
    assert set(library.tasks.values()) == {None}
    assert library["GAD"] == TASKS["GAD"]
    assert [name for name, task in library.tasks.items() if task is not None] == ["GAD"]


@pytest.mark.parametrize("path", sorted(LIBRARY.iterdir()), ids=lambda path: path.name)
def test_the_file_of_a_task_opens_with_a_description_the_licence_and_the_source(path):
    text = path.read_text(encoding="utf-8")
    assert re.match(r"(# .+\n)+licence: .+\nobtain: .+\n", text)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_task_says_what_scores_it_under_which_licence_and_where_to_get_it(task):
    assert task.metric in METRICS[task.kind]
    assert task.licence
    assert task.obtain.endswith(".")
    assert len(task.protocol.seeds) == {"en": 5, "fr": 9, "es": 5}[task.language]


def test_protocols_are_the_papers():
    ncbi, chemprot, phenotype, deid = (
        TASKS[name].protocol for name in ("NCBI-disease", "ChemProt", "Phenotype", "DEID")
    )
    for protocol in (ncbi, chemprot, phenotype, deid):
        assert (protocol.learning_rate, protocol.weight_decay, protocol.batch_size) == (5e-5, 0.01, 16)
        assert protocol.seeds == (42, 43, 44, 45, 46)
    assert (ncbi.epochs, chemprot.epochs) == (20, 10)
    assert (ncbi.max_tokens, phenotype.max_tokens, deid.max_tokens) == (512, 8192, 8192)
    fracco, diamed, emea = (TASKS[name].protocol for name in ("FRACCO-30", "DiaMED", "EMEA"))
    for protocol in (fracco, diamed):
        assert (protocol.learning_rate, protocol.epochs, protocol.batch_size, protocol.warmup) == (
            2e-5,
            15,
            4,
            0.1,
        )
    assert (fracco.max_tokens, fracco.positive_weight) == (4096, True)
    assert (diamed.max_tokens, diamed.positive_weight) == (2048, False)
    assert (emea.learning_rate, emea.head_learning_rate, emea.steps, emea.batch_size, emea.max_tokens) == (
        5e-5,
        1e-3,
        4000,
        16,
        1024,
    )


def test_a_flat_task_keeps_of_overlapping_entities_the_one_it_is_told_to(tmp_path):
    long_first = (
        "the right lung",
        "T1\tPlace 4 14\tright lung\nT2\tSide 4 9\tright\nT3\tOrgan 10 14\tlung\n",
    )
    brat(tmp_path / "mine", train__a=long_first, dev__b=long_first, test__c=long_first)
    settings = {**SIGNS, "labels": ["Place", "Side", "Organ"]}
    for rule, kept in (("longest", ["Place"]), ("last", ["Side", "Organ"])):
        _, splits = load(from_yaml("mine", {**settings, "overlaps": rule}), tmp_path)
        (document,) = splits["train"]
        assert [one.label for one in document.entities] == kept
        assert len(document.entities) + len(document.left_out) == 3
    _, splits = load(from_yaml("mine", {**settings, "kind": "nested_entities"}), tmp_path)
    assert [(one.label, one.start, one.end) for one in splits["train"][0].entities] == [
        ("Side", 4, 9),
        ("Place", 4, 14),
        ("Organ", 10, 14),
    ]


@pytest.mark.parametrize("overlaps", ["error", "longest", "last"])
@pytest.mark.parametrize(
    ("text", "span", "words"),
    [
        ("severe wound\ninfection noted\n", "7 22", "wound infection"),
        ("severe wound\ninfection noted\n", "7 12;13 22", "wound infection"),
        ("severe wound\r\n\tinfection", "7 12;15 24", "wound infection"),
        ("severe wound\ninfection noted\n", "13 22;7 12", "infection wound"),
        ("severe wound\ninfection noted\n", "7 12;12 22", "wound infection"),
        ("severe wound\ninfection noted\n", "6 12;12 13;13 23", " wound infection "),
    ],
)
def test_pieces_with_only_white_space_between_are_one_entity(tmp_path, overlaps, text, span, words):
    lines = f"T1\tReason {span}\t{words}\n"
    brat(tmp_path / "mine", train__a=(text, lines), dev__b=(text, lines), test__c=(text, lines))
    settings = {"form": "brat", "kind": "entities", "labels": ["Reason"], "overlaps": overlaps}
    _, splits = load(from_yaml("mine", settings), tmp_path)
    (document,) = splits["train"]
    (entity,) = document.entities
    assert (entity.start, entity.fragments, document.left_out) == (7, (), ())
    assert document.text[entity.start : entity.end].split() == ["wound", "infection"]


def test_white_space_at_the_ends_of_an_annotation_is_no_part_of_it_in_any_form(tmp_path):
    text = "Seen on  04/07 ."
    brat(
        tmp_path / "brat",
        **{f"{split}__{split}": (text, "T1\tDATE 8 15\t 04/07 \n") for split in SPLIT_FOLDERS},
    )
    xml = '<R><RECORD ID="{}"><TEXT>Seen on <PHI TYPE="DATE"> 04/07 </PHI>.</TEXT></RECORD></R>'
    for split in SPLIT_FOLDERS:
        written(tmp_path / "i2b2" / split / "a.xml", xml.format(split))
    for name in ("brat", "i2b2"):
        _, splits = load(from_yaml(name, {"form": name, "kind": "entities", "labels": ["DATE"]}), tmp_path)
        assert splits["test"][0].entities == (Entity("DATE", 9, 14),)


@pytest.mark.parametrize("kind", ["multi_label", "single_label"])
def test_a_label_that_is_not_a_number_is_no_label(tmp_path, kind):
    for split in SPLIT_FOLDERS:
        rows = [{"text": f"{split} {n}", "label": label} for n, label in enumerate(["X", float("nan"), "Y"])]
        written(tmp_path / "mine" / f"{split}.jsonl", "\n".join(map(json.dumps, rows)))
    task = from_yaml("mine", {"form": "jsonl", "kind": kind})
    if kind == "single_label":
        with pytest.raises(
            UserError, match=r"train\.jsonl line 2 has 0 labels, but a document of mine has exactly one"
        ):
            load(task, tmp_path)
        return
    task, splits = load(task, tmp_path)
    assert task.labels == ("X", "Y")
    assert [one.labels for one in splits["train"]] == [("X",), (), ("Y",)]


def test_all_that_is_left_out_is_counted_by_split_and_reason(tmp_path):
    text = "the right lung and kidney"
    lines = "T1\tPlace 4 14\tright lung\nT2\tSide 4 9\tright\nT3\tPlace 10 14;19 25\tlung kidney\nT4\tComment 0 3\tthe\n"
    brat(
        tmp_path / "mine",
        train__a=(text, lines),
        dev__b=("right", "T1\tSide 0 5\tright\n"),
        test__c=(text, lines),
    )
    settings = {"form": "brat", "kind": "entities", "overlaps": "longest", "rename": {"Comment": None}}
    task, splits = load(from_yaml("mine", settings), tmp_path)
    assert [one.label for one in splits["train"][0].entities] == ["Place"]
    assert of_data(task, splits) == {
        "train annotations by rename": 1,
        "train annotations in several pieces": 1,
        "train annotations by overlap": 1,
        "validation labels that training has not": 1,
        "test annotations by rename": 1,
        "test annotations in several pieces": 1,
        "test annotations by overlap": 1,
    }


def test_the_command_says_what_is_left_out(tmp_path, capsys):
    both = ("right lung", "T1\tPlace 0 10\tright lung\nT2\tSide 0 5\tright\n")
    brat(tmp_path / "mine", train__a=both, dev__b=both, test__c=both)
    print_overview([from_yaml("mine", {"form": "brat", "kind": "entities", "overlaps": "longest"})], tmp_path)
    said = capsys.readouterr().err
    assert "mine leaves out: train annotations by overlap 1, validation annotations by overlap 1" in said


def test_labels_and_rows_that_are_left_out_are_counted(tmp_path):
    for split in SPLIT_FOLDERS:
        rows = [["a", "Note"], ["b"], ["a", split]]
        lines = [json.dumps({"text": f"{split} {n}", "label": row}) for n, row in enumerate(rows)]
        written(tmp_path / "mine" / f"{split}.jsonl", "\n".join(lines))
    settings = {"form": "jsonl", "kind": "multi_label", "rename": {"Note": None}}
    assert of_data(*load(from_yaml("mine", settings), tmp_path)) == {
        "train labels by rename": 1,
        "validation labels by rename": 1,
        "validation labels that training has not": 1,
        "test labels by rename": 1,
        "test labels that training has not": 1,
    }
    frequent = of_data(*load(from_yaml("mine", {**settings, "most_frequent": 1}), tmp_path))
    assert frequent["labels that are not among the most frequent"] == 6
    assert frequent["documents without a frequent label"] == 3


def test_a_split_without_documents_is_said(tmp_path):
    written(tmp_path / "mine" / "all.csv", "text,label,part\nx,1,train\n")
    task = from_yaml("mine", {"form": "csv", "kind": "single_label", "files": "all.csv", "split": "part"})
    with pytest.raises(UserError, match="has no documents in the validation split of mine"):
        load(task, tmp_path)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (("Fièvre", "T1\tSing 0 6\tFièvre\n"), r"a\.ann line 1: 'Sing' is not a label of mine; it has Sign"),
        (
            ("Fièvre", "\nT1\tSign 0 7\tFièvre\n"),
            r"a\.ann line 2: Sign ends at 7, past the end of the text \(6\)",
        ),
        (("Fièvre", "T1\tSign 3 3\t\n"), r"a\.ann line 1: Sign at .* is empty"),
        (("Fièvre", "T1\tSign 0 3;2 6\tFièvre\n"), r"a\.ann line 1: Sign at .* overlaps itself"),
        (
            ("Fièvre", "T1\tSign 1 6\tFièvre\n"),
            r"a\.ann line 1: the text at \[1, 6\] \(5 characters\) is not the annotated text of the file \(6 characters\)",
        ),
        (
            ("Fièvre", "T1\tSign 0 6\tFièvre\nT2\tSign 3 6\tvre\n"),
            r"a\.ann line 2: Sign overlaps Sign \(.*a\.ann line 1\), but mine is flat; set `overlaps",
        ),
        (
            ("Fièvre rouge", "T1\tSign 0 3;7 12\tFiè rouge\n"),
            r"a\.ann line 1: Sign is in several pieces, but mine is flat",
        ),
        (("", ""), r"a\.txt is empty"),
    ],
)
def test_a_document_that_cannot_be_used_is_one_sentence_with_file_and_line(tmp_path, document, said):
    brat(tmp_path / "mine", **{**EVERYWHERE, "train__a": document})
    with pytest.raises(UserError, match=said) as error:
        load(from_yaml("mine", SIGNS), tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_split_a_missing_folder_and_a_document_in_two_splits_are_said(tmp_path):
    brat(tmp_path / "mine", train__a=FINE, dev__a=FINE)
    with pytest.raises(UserError, match=r"mine has no test split of mine \(no file .*`held_out`"):
        load(from_yaml("mine", SIGNS), tmp_path)
    with pytest.raises(UserError, match=r"no folder NCBI-disease\. Free: "):
        load(TASKS["NCBI-disease"], tmp_path)
    brat(tmp_path / "mine", test__c=FINE)
    with pytest.raises(UserError, match="train and validation share 1 documents, a among them"):
        load(from_yaml("mine", {**SIGNS, "disjoint": True}), tmp_path)
    assert load(from_yaml("mine", SIGNS), tmp_path)


def test_a_classified_document_has_exactly_one_known_label(tmp_path):
    for split in ("train", "dev", "test"):
        written(tmp_path / "mine" / f"{split}.jsonl", '{"text": "x", "label": "yes"}\n')
    settings = {"form": "jsonl", "kind": "single_label", "labels": ["no", "yes"]}
    task, splits = load(from_yaml("mine", settings), tmp_path)
    assert [one.labels for one in splits["test"]] == [("yes",)]
    assert load(from_yaml("mine", {**settings, "labels": []}), tmp_path)[0].labels == ("yes",)
    written(tmp_path / "mine" / "dev.jsonl", '{"text": "x", "label": ["yes", "no"]}\n')
    with pytest.raises(
        UserError, match=r"dev\.jsonl line 1 has 2 labels, but a document of mine has exactly one"
    ):
        load(task, tmp_path)
    written(tmp_path / "mine" / "dev.jsonl", '{"text": "x", "label": null}\n')
    for labels in (["no", "yes"], []):
        with pytest.raises(
            UserError, match=r"dev\.jsonl line 1 has 0 labels, but a document of mine has exactly one"
        ):
            load(from_yaml("mine", {**settings, "labels": labels}), tmp_path)
    written(tmp_path / "mine" / "dev.jsonl", '{"text": "x", "label": "maybe"}\n')
    with pytest.raises(
        UserError, match=r"dev\.jsonl line 1: 'maybe' is not a label of mine; it has no, yes\.$"
    ):
        load(task, tmp_path)


def test_the_first_of_several_formats_that_finds_files_is_read(tmp_path):
    settings = {"form": "csv", "kind": "single_label", "alternatives": [{"form": "jsonl", "label": "class"}]}
    task = from_yaml("mine", {**settings, "labels": [0, 1]})
    for split in SPLIT_FOLDERS:
        written(tmp_path / "mine" / f"{split}.jsonl", '{"text": "x", "class": 1}\n')
    assert load(task, tmp_path)[1]["test"][0].labels == ("1",)
    for split in SPLIT_FOLDERS:
        written(tmp_path / "mine" / f"{split}.csv", "text,label\nx,0\n")
    assert load(task, tmp_path)[1]["test"][0].labels == ("0",)


def test_labels_that_yaml_took_for_true_and_false_are_to_be_quoted():
    said = r"tasks\.mine\.labels\[0\]: true is not a label; YAML reads yes, .* put the labels in quotes"
    with pytest.raises(UserError, match=said):
        from_yaml("mine", {"form": "jsonl", "kind": "single_label", "labels": [True, False]})


def test_splits_are_drawn_from_train_by_document_the_same_every_time():
    documents = [Document(f"{patient}#{note}", "text") for patient in range(100) for note in range(3)]
    shares = {"validation": 0.1, "test": 0.2}
    splits = hold_out(shares, {"train": documents})
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [210, 30, 60]
    assert shared_ids(splits) == {}
    again = hold_out(shares, {"train": documents[::-1]})
    assert {one.id for one in splits["test"]} == {one.id for one in again["test"]}
    assert hold_out({}, splits) is splits


def test_what_two_splits_share_is_found_by_id_and_by_text():
    splits = {
        "train": [Document("7#1", "One."), Document("train:1", "Two.")],
        "validation": [Document("train:1", "Three.")],
        "test": [Document("7#2", "Two.")],
    }
    assert shared_ids(splits) == {("train", "test"): {"7"}}
    assert shared_texts(splits) == {("train", "test"): {"Two."}}


def test_the_most_frequent_codes_of_a_case_are_its_labels(tmp_path):
    folder = tmp_path / "FRASIMED" / "CANTEMIST-FRASIMED"
    for number in range(40):
        written(folder / f"cc{number}.txt", "grosseur")
        codes = [f"8000/{digit}" for digit in range(min(number + 1, 8))] + [f"9{number:03}/1"] * (number == 0)
        notes = "".join(f"#{place}\tICD-O-3.1 T1\t{code}\n" for place, code in enumerate(codes))
        written(folder / f"cc{number}.ann", "T1\tmorphology-onco 0 8\tgrosseur\n" + notes)
    settings = {
        "form": "brat",
        "kind": "multi_label",
        "codes": ["ICD-O-3.1"],
        "most_frequent": 3,
        "language": "fr",
    }
    settings |= {"files": {"train": "*.txt"}, "held_out": {"validation": 0.1, "test": 0.1}}
    task, splits = load(from_yaml("FRASIMED/CANTEMIST-FRASIMED", settings), tmp_path)
    assert task.labels == ("8000/0", "8000/1", "8000/2")
    assert task.skipped == {"labels that are not among the most frequent": 35 + 36 + 37 + 34 + 33 + 1}
    assert [len(documents) for documents in splits.values()] == [32, 4, 4]
    assert locate(TASKS["CANTEMIST"], tmp_path) == folder
    assert len(load(TASKS["CANTEMIST"], tmp_path)[0].labels) == 9


def test_phenotype_joins_annotations_and_notes_and_leaves_out_what_contradicts_itself(tmp_path):
    conditions = TASKS["Phenotype"].labels
    header = ["HADM_ID", "SUBJECT_ID", "ROW_ID", *conditions, "NONE"]
    rows = [
        [
            str(1000 + row),
            str(row // 2),
            str(row),
            *("1" if place == row % 14 else "0" for place in range(14)),
            "0",
        ]
        for row in range(30)
    ]
    rows[3][-1] = "1"
    written(
        tmp_path / "Phenotype" / "ACTdb102003.csv", "\n".join(",".join(row) for row in [header, *rows]) + "\n"
    )
    notes = "ROW_ID,SUBJECT_ID,TEXT\n" + "".join(
        f'{row},1,"Line 1\nof note ""{row}"""\n' for row in range(50)
    )
    (tmp_path / "Phenotype" / "NOTEEVENTS.csv.gz").write_bytes(gzip.compress(notes.encode()))
    task, splits = load(TASKS["Phenotype"], tmp_path)
    documents = {one.id: one for split in splits.values() for one in split}
    assert set(documents) == {f"{row // 2}#{row}" for row in range(30) if row != 3}
    assert task.skipped == {"notes with a condition and none": 1}
    assert documents["2#5"].text == 'Line 1\nof note "5"'
    assert documents["7#15"].labels == (conditions[1],)
    patients = [{origin(one) for one in split} for split in splits.values()]
    assert list(map(len, patients)) == [10, 1, 4]
    assert len(set.union(*patients)) == 15
    (tmp_path / "Phenotype" / "NOTEEVENTS.csv.gz").write_bytes(
        gzip.compress(b"ROW_ID,SUBJECT_ID,TEXT\n0,1,x\n")
    )
    with pytest.raises(UserError, match=r"ACTdb102003\.csv line 3: NOTEEVENTS has no ROW_ID 1"):
        load(TASKS["Phenotype"], tmp_path)


def test_meddialog_joins_questions_answers_and_their_concepts(tmp_path):
    folder = tmp_path / "MedDialog-FR" / "MedDialog-FR-women"
    rows = [
        ("1", "train", "['C0000001']"),
        ("2", "dev", "['C0000002', 'C0000001']"),
        ("3", "test", "['C0000001']"),
    ]
    labels = "".join(f"hm_{number}_q\t{split}\t{concepts}\n" for number, split, concepts in rows)
    written(
        folder / "multilabel_annotation" / "dataset_multilabel_meddialog_22labels.csv",
        f"id\tsplit\tlabels\n{labels}",
    )
    texts = "".join(f"hm_{number}_q\tmt\tPourquoi ?\nhm_{number}_a\tmt\tParce que.\n" for number in (1, 2, 3))
    written(
        folder / "post-editing" / "meddialog-fr-women_post-editing.csv",
        f"id\tmachine_translation\tpost-edited\n{texts}",
    )
    task, splits = load(TASKS["MedDialog"], tmp_path)
    assert task.labels == ("C0000001", "C0000002")
    assert splits["validation"][0].labels == ("C0000001", "C0000002")
    assert splits["test"][0].text == "Question: Pourquoi ?\n\nRéponse: Parce que."


def test_cos_deid_and_i2b2_are_read_in_their_true_forms(tmp_path):
    snippets = "".join("Slight increase\n" for _ in range(20))
    lines = [
        f"T{n}\tSnippet {16 * n} {16 * n + 15}\tSlight increase\nT9{n}\tCos {16 * n + 7} {16 * n + 15}\tincrease\n"
        for n in range(20)
    ]
    written(tmp_path / "events-COS-corpus" / "release_Jan_1_2015" / "data" / "snippet1_20.txt", snippets)
    written(
        tmp_path / "events-COS-corpus" / "release_Jan_1_2015" / "data" / "snippet1_20.ann", "".join(lines)
    )
    _, splits = load(TASKS["COS"], tmp_path)
    assert [len(split) for split in splits.values()] == [14, 3, 3]
    assert splits["test"][0].entities == (Entity("Cos", 7, 15),)

    record = "START_OF_RECORD={}||||1||||\nSeen by Dr. {}.\n||||END_OF_RECORD\n"
    written(tmp_path / "DEID" / "id.text", "".join(record.format(patient, "Hilt") for patient in range(20)))
    written(
        tmp_path / "DEID" / "id.res",
        "".join(record.format(patient, "[**Last Name 1**]") for patient in range(20)),
    )
    _, splits = load(TASKS["DEID"], tmp_path)
    assert [len(split) for split in splits.values()] == [14, 3, 3]
    assert splits["train"][0].entities == (Entity("name", 12, 16),)

    note = '<RECORD ID="{}"><TEXT>On <PHI TYPE="DATE">4/7</PHI>.</TEXT></RECORD>'
    for name, numbers in (
        ("deid_surrogate_train_all_version2", range(10)),
        ("deid_surrogate_test_all_groundtruth_version2", (10,)),
    ):
        written(
            tmp_path / "i2b2-2006" / f"{name}.xml",
            f"<ROOT>{''.join(note.format(one) for one in numbers)}</ROOT>",
        )
    _, splits = load(TASKS["i2b2-2006"], tmp_path)
    assert [len(split) for split in splits.values()] == [9, 1, 1]


def test_diamed_is_read_with_chapters_as_numbers_or_names(tmp_path):
    for split, chapter in (("train", 1), ("validation", '"C00-D49  Neoplasms"'), ("test", '"R00-R99"')):
        written(
            tmp_path / "DiaMED" / f"{split}.jsonl",
            f'{{"clinical_case": "Un cas {split}.", "icd-10": {chapter}}}\n',
        )
    _, splits = load(TASKS["DiaMED"], tmp_path)
    assert [split[0].labels[0] for split in splits.values()] == ["C00-D49", "C00-D49", "R00-R99"]


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ("tsv", "tasks.mine is a section of `key: value` pairs"),
        ({}, "tasks.mine.form is not set"),
        ({"form": "tsv"}, "tasks.mine.kind is not set"),
        ({"frm": "tsv"}, "did you mean tasks.mine.form?"),
        ({"form": "cnll", "kind": "entities"}, "tasks.mine.form: 'cnll' is not known; did you mean conll?"),
        ({"form": "conll", "kind": "entity"}, "tasks.mine.kind: 'entity' is not known"),
        ({"form": "conll", "kind": "single_label"}, "gives entities"),
        ({"form": "tsv", "kind": "entities"}, "gives labels"),
        (
            {"form": "tsv", "kind": "single_label", "metric": "tag_f1"},
            "tasks.mine.metric of single_label: 'tag_f1'",
        ),
        ({"form": "tsv", "kind": "single_label", "metric": "positive_f1"}, "needs `negative`"),
        ({"form": "tsv", "kind": "single_label", "word": 1}, "tasks.mine.word has no effect on the form tsv"),
        ({"form": "tsv", "kind": "single_label", "overlaps": "last"}, "tasks.mine.overlaps is for entities"),
        (
            {"form": "conll", "kind": "entities", "overlaps": "first"},
            "tasks.mine.overlaps: 'first' is not known",
        ),
        ({"form": "conll", "kind": "entities", "labels": ["A", "A"]}, "tasks.mine.labels: A is listed twice"),
        ({"form": "conll", "kind": "entities", "labels": "A"}, "tasks.mine.labels"),
        (
            {"form": "conll", "kind": "entities", "labels": ["A"], "rename": {"x": "B"}},
            "tasks.mine.rename: 'B'",
        ),
        (
            {"form": "conll", "kind": "entities", "held_out": {"dev": 0.1}},
            "tasks.mine.held_out: 'dev' is not known",
        ),
        (
            {"form": "conll", "kind": "entities", "held_out": {"test": 1.5}},
            "use a number above 0 and below 1",
        ),
        (
            {"form": "conll", "kind": "entities", "held_out": {"test": 0.5, "validation": 0.5}},
            "leaves nothing",
        ),
        (
            {"form": "conll", "kind": "entities", "protocol": {"epoch": 3}},
            "did you mean tasks.mine.protocol.epochs?",
        ),
        ({"form": "conll", "kind": "entities", "protocol": {"epochs": "x"}}, "tasks.mine.protocol.epochs"),
        *(
            ({"form": "conll", "kind": "entities", "protocol": {key: value}}, f"tasks.mine.protocol.{key}")
            for key, value in (
                ("batch_size", 0),
                ("epochs", 0),
                ("learning_rate", -1),
                ("seeds", []),
                ("seeds", [-1]),
            )
        ),
        ({"form": "conll", "kind": "entities", "files": 3}, "neither a glob"),
        (
            {"form": "conll", "kind": "entities", "files": {"dev": "x"}},
            "tasks.mine.files: 'dev' is not known",
        ),
        ({"form": "hub", "kind": "single_label"}, "tasks.mine.path is not set"),
        (
            {"form": "hub", "kind": "single_label", "path": "a/b", "files": "x"},
            "tasks.mine.files has no effect",
        ),
        (
            {"form": "hub", "kind": "single_label", "path": "a/b", "folder": "x"},
            "tasks.mine.folder has no effect",
        ),
        *(
            (
                {"form": "brat", "kind": "entities", "alternatives": [section]},
                f"tasks.mine.alternatives[0]{said}",
            )
            for section, said in (
                ("x", " is a section of `key: value` pairs"),
                ({"form": "hub"}, ".form: 'hub' is not known"),
                ({"form": "tsv", "word": 1}, ".word has no effect on the form tsv"),
                ({"form": "tsv"}, ": the form tsv with these keys gives labels"),
            )
        ),
    ],
)
def test_a_mistake_in_a_tasks_yaml_is_one_sentence(mapping, said):
    with pytest.raises(UserError) as error:
        from_yaml("mine", mapping)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_task_from_yaml_has_the_papers_protocol_but_for_what_is_set():
    task = from_yaml(
        "mine",
        {
            "form": "csv",
            "kind": "multi_label",
            "language": "fr",
            "separator": ";",
            "protocol": {"epochs": 3, "seeds": [1, 2]},
        },
    )
    expected = TASKS["FRACCO-30"].protocol
    assert (task.protocol.epochs, task.protocol.seeds) == (3, (1, 2))
    assert (task.protocol.learning_rate, task.protocol.positive_weight) == (expected.learning_rate, True)


def test_the_example_of_the_page_on_tasks_is_valid(tmp_path):
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)]
    (mine,) = [block for block in examples if "own_tasks" in block]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    settings = load_evaluation(tmp_path / "mine.yaml", [], ["base=x"])
    assert len(settings.own_tasks) >= 4
    assert set(settings.tasks) <= set(known_tasks(settings))


def test_the_guide_for_adding_a_task_has_a_complete_example(tmp_path):
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    guide = page.partition("## Add a task")[2]
    assert guide.partition("```")[0].strip().count("\n") < 10
    task = from_yaml("triage", yaml.safe_load(re.search(r"```yaml\n(.*?)```", guide, flags=re.DOTALL)[1]))
    for split, labels in {"train": ["no", "yes", "no"], "dev": ["no"], "test": ["yes"]}.items():
        rows = "".join(f"{split} {number}\t{label}\n" for number, label in enumerate(labels))
        written(tmp_path / "triage" / f"{split}.tsv", f"message\tlabel\n{rows}")
    task, splits = load(task, tmp_path)
    assert differences(task, splits) == []
    assert [one.labels for one in splits["train"]] == [("no",), ("yes",), ("no",)]


def test_the_tables_of_keys_on_the_page_on_tasks_are_complete():
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    tables = page.partition("These keys go with every form")[2].partition("A mistake in the data")[0]
    assert {*TASK_KEYS, *FORMAT_KEYS, *FORMATS} <= set(re.findall(r"`([\w]+)", tables))


def test_the_page_on_tasks_has_a_row_for_each():
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| ([\w-]+) \| (?:en|fr|es) ", page, flags=re.MULTILINE) == list(TASKS)


def tasks_command(*words: object) -> str:
    from typer.testing import CliRunner

    return CliRunner().invoke(app, ["tasks", *map(str, words)], catch_exceptions=False).output


def test_the_command_lists_what_is_there_what_is_absent_and_what_differs_from_what_was_published(
    tmp_path, capsys
):
    for split in ("train", "devel", "test"):
        written(tmp_path / "NCBI-disease" / f"{split}.tsv", f"{split}\tO\ncancer\tB-Disease\n")
    written(tmp_path / "GAD" / "train.tsv", "")
    print_overview([TASKS[name] for name in ("NCBI-disease", "GAD", "HoC")], tmp_path)
    said = capsys.readouterr().err
    assert "NCBI-disease: train documents: 1 here, 5,424 published" in said
    assert "NCBI-disease: entities: 3 here, 6,881 published" in said
    assert re.search(r"GAD cannot be read: .*train\.tsv is empty", said)
    assert re.search(r"HoC .*absent", said)
    assert TASKS["HoC"].obtain in said
    print_overview([TASKS["EMEA"]], None)
    assert TASKS["EMEA"].obtain in capsys.readouterr().err


def test_the_command_refuses_a_language_and_a_folder_that_it_does_not_know(tmp_path):
    with pytest.raises(UserError, match="--language: 'it' is not known"):
        tasks_command("--language", "it")
    with pytest.raises(UserError, match="There is no folder"):
        tasks_command(tmp_path / "nowhere")


def test_counts_name_splits_and_labels_and_what_is_left_out():
    task = from_yaml("mine", {**SIGNS, "published": {"train.documents": 1, "entities": 3}})
    sign = Entity("Sign", 0, 1)
    splits = {
        "train": [Document("1", "ab", entities=(sign,), left_out=(sign,))],
        "test": [Document("2", "ab", entities=(sign,))],
    }
    found = counts(task, splits)
    assert (found["documents"], found["train.entities.Sign"], found["entities"], found["annotations"]) == (
        2,
        1,
        2,
        3,
    )
    assert differences(task, splits) == ["mine: entities: 2 here, 3 published"]

"""Each form gives what stands in its files, and says in one sentence, with file and line, what it cannot read."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from clm_detour.evaluate.formats.bigbio import BigBio
from clm_detour.evaluate.formats.biocreative import BioCreative
from clm_detour.evaluate.formats.brat import Brat
from clm_detour.evaluate.formats.conll import Conll, chunks
from clm_detour.evaluate.formats.format import Format, split_files
from clm_detour.evaluate.formats.hub import Hub
from clm_detour.evaluate.formats.i2b2 import I2b2
from clm_detour.evaluate.formats.physionet import PhysioNet, type_of
from clm_detour.evaluate.formats.table import Table, read_records
from clm_detour.utils.errors import UserError


def written(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="")
    return path


def examples(form: Format, file: Path, split: str = "train") -> list:
    return list(form.examples(file, split))


def found(form: Format, file: Path) -> list[list[tuple[str, str]]]:
    """Of each example the annotated words and their types."""
    return [
        [(" ".join(one.text[a:b] for a, b in span.fragments), span.label) for span in one.annotations]
        for one in examples(form, file)
    ]


def test_conll_sentences_end_at_blank_lines_and_documents_begin_at_docstart(tmp_path):
    file = written(
        tmp_path / "train.tsv",
        "-DOCSTART- 17\n\nIL-2\tB\ngene\tI\nacts\tO\n\nNo\tO\n\n\n-DOCSTART- 18\n\nx\tB\n",
    )
    form = Conll(label="Entity")
    assert [one.id for one in examples(form, file)] == ["17#1", "17#2", "18#1"]
    assert [one.text for one in examples(form, file)] == ["IL-2 gene acts", "No", "x"]
    assert found(form, file) == [[("IL-2 gene", "Entity")], [], [("x", "Entity")]]


@pytest.mark.parametrize("mark", ["-DOCSTART- -X- -X- O", "-DOCSTART- -X-", "-DOCSTART-\tO", "-DOCSTART-"])
def test_conll_columns_after_docstart_are_no_name_and_end_the_document_before(tmp_path, mark):
    file = written(tmp_path / "train.txt", f"-DOCSTART- 17\n\na O\n\n{mark}\n\nb O\n\n{mark}\n\nc O\n")
    assert [one.id for one in examples(Conll(), file)] == ["17#1", "train:1", "train:2"]


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("B-A I-A O B-A", [(0, 1), (3, 3)]),  # IOB2
        ("I-A I-A O I-A B-A", [(0, 1), (3, 3), (4, 4)]),  # IOB1
        ("B-A E-A S-A O S-B", [(0, 1), (2, 2), (4, 4)]),  # IOBES
        ("B-A I-B I-B", [(0, 0), (1, 2)]),  # a type that changes begins an entity
        ("O O", []),
    ],
)
def test_conll_tags_of_every_scheme_are_read_as_conlleval_reads_them(tags, entities):
    pairs = [("O", "") if tag == "O" else (tag[0], tag[2:]) for tag in tags.split()]
    assert list(chunks(pairs)) == entities


@settings(max_examples=300)
@given(st.lists(st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B"]), min_size=1, max_size=12))
def test_conll_entities_are_those_of_seqeval(tags):
    pairs = [("O", "") if tag == "O" else (tag[0], tag[2:]) for tag in tags]
    assert list(chunks(pairs)) == [(first, last) for _, first, last in get_entities(tags)]


@pytest.mark.parametrize(
    "content",
    [
        "Severe O\nflu B-Disease \n",
        "Severe\tO\nflu\tB-Disease\t\n",
        " Severe O\nflu B-Disease\n",
        "Severe   O\r\nflu  B-Disease\t\r\n \r\n",
        "\ufeffSevere\tO \nflu \tB-Disease\n\t\n",
        "Severe O\rflu B-Disease\r",
    ],
)
def test_conll_blanks_around_columns_and_the_kind_of_line_end_do_not_count(tmp_path, content):
    file = written(tmp_path / "train.txt", content)
    assert [one.text for one in examples(Conll(), file)] == ["Severe flu"]
    assert found(Conll(), file) == [[("flu", "Disease")]]


def test_a_conll_line_with_other_columns_than_those_before_it_is_refused(tmp_path):
    file = written(tmp_path / "train.txt", "Severe JJ I-NP O\nflu NN B-NP\n")
    with pytest.raises(UserError, match=r"train\.txt line 2 has 3 columns, but the lines before it have 4"):
        examples(Conll(), file)


def test_a_brat_line_of_no_kind_is_refused_not_passed_over(tmp_path):
    file = written(tmp_path / "a.txt", "aspirin")
    written(tmp_path / "a.ann", " T1\tDrug 0 7\taspirin\n")
    with pytest.raises(
        UserError, match=r"a\.ann line 1 \(\d+ characters\) does not begin like a line of BRAT"
    ):
        examples(Brat(), file)


def test_brat_codes_may_end_in_a_blank_and_an_empty_one_is_no_label(tmp_path):
    file = written(tmp_path / "a.txt", "grosseur")
    written(tmp_path / "a.ann", "#1\tICD-O T1\t \nN1\tReference T1 ICD-O:8000/6 \tx\n")
    assert [one.labels for one in examples(Brat(codes=("ICD-O",)), file)] == [("8000/6",)]


def test_brat_pieces_keep_their_offsets_over_windows_line_ends(tmp_path):
    text = "fièvre\r\naiguë et chronique\r\n"
    file = written(tmp_path / "a.txt", text)
    written(tmp_path / "a.ann", "T1\tDISO 0 6;17 26\tfièvre chronique\n#1\tNote T1\tC1\nE1\tDISO:T1\n")
    assert found(Brat(), file) == [[("fièvre chronique", "DISO")]]


def test_brat_annotations_after_a_byte_order_mark_are_read(tmp_path):
    file = written(tmp_path / "a.txt", "aspirin")
    written(tmp_path / "a.ann", "\ufeffT1\tDrug 0 7\taspirin\n")
    assert found(Brat(), file) == [[("aspirin", "Drug")]]


def test_brat_notes_and_normalisations_can_be_the_labels_of_the_document(tmp_path):
    file = written(tmp_path / "cc1.txt", "grosseur")
    written(
        tmp_path / "cc1.ann",
        "T9\tmorphology-onco 0 8\tgrosseur\n#1\tICD-O-3.1 T9\t8500/3\n#19\tSNOMED T9\t58477004\nN1\tReference T9 ICD-O-3.1:8000/6\tx\n",
    )
    (one,) = examples(Brat(codes=("ICD-O-3.1",)), file)
    assert one.labels == ("8500/3", "8000/6")


def test_brat_documents_can_be_parts_of_a_longer_text(tmp_path):
    file = written(tmp_path / "snippet1_100.txt", "Slight increase\nNo change of opacity\n")
    written(
        tmp_path / "snippet1_100.ann",
        "T1\tSnippet 0 15\tSlight increase\nT2\tSnippet 16 36\tNo change of opacity\nT3\tCos 7 15\tincrease\nT4\tVal 29 36\topacity\n",
    )
    form = Brat(part="Snippet")
    assert [one.text for one in examples(form, file)] == ["Slight increase", "No change of opacity"]
    assert found(form, file) == [[("increase", "Cos")], [("opacity", "Val")]]


@pytest.mark.parametrize("mark", ["0 15", "0 4;8 15"])
@pytest.mark.parametrize("span", ["16 18", "7 18", "7 15;16 18"])
def test_a_brat_annotation_that_is_not_inside_one_part_is_refused(tmp_path, mark, span):
    file = written(tmp_path / "a.txt", "Slight increase\nNo change\n")
    written(tmp_path / "a.ann", f"T1\tSnippet {mark}\tx\nT2\tSnippet 19 25\tx\nT3\tCos {span}\tx\n")
    with pytest.raises(UserError, match=r"a\.ann line 3: Cos is not inside one Snippet"):
        examples(Brat(part="Snippet", check_text=False), file)


def test_null_and_empty_cells_are_no_labels(tmp_path):
    values = [None, "", " ", [], [None], ["a", None], 0, float("nan"), ["a", float("nan")]]
    rows = [json.dumps({"text": "x", "label": value}) + "\n" for value in values]
    read = examples(Table(), written(tmp_path / "train.jsonl", "".join(rows)))
    assert [one.labels for one in read] == [(), (), (), (), (), ("a",), ("0",), (), ("a",)]


def test_a_number_is_the_same_label_in_every_kind_of_table(tmp_path):
    written(tmp_path / "train.csv", "text,label\nx,1\ny,\n")
    written(tmp_path / "train.jsonl", '{"text": "x", "label": 1}\n{"text": "y", "label": null}\n')
    columns = {"text": ["x", "y"], "label": pa.array([1.0, float("nan")])}  # as pandas makes it of 1 and none
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        read = examples(Table(), tmp_path / f"train.{suffix}")
        assert [one.labels for one in read] == [("1",), ()]


@pytest.mark.parametrize("value", ["Infinity", '{"a": 1}', '[["a"]]', "[-Infinity]"])
def test_what_is_neither_text_nor_a_number_is_no_label(tmp_path, value):
    file = written(tmp_path / "train.jsonl", f'{{"text": "x", "label": {value}}}\n')
    with pytest.raises(UserError, match=r"line 1: label has something that is neither text nor a number"):
        examples(Table(), file)


@pytest.mark.parametrize("value", ["null", "NaN", '""', '" "'])
def test_a_record_without_the_id_that_names_it_is_refused(tmp_path, value):
    file = written(tmp_path / "train.jsonl", f'{{"text": "x", "label": "a", "id": {value}}}\n')
    with pytest.raises(UserError, match="line 1 has nothing in id, which names the records; fill it in"):
        examples(Table(id="id"), file)
    bigbio = f'{{"document_id": {value}, "passages": [], "entities": []}}\n'
    with pytest.raises(UserError, match="line 1 has nothing in document_id"):
        examples(BigBio(), written(tmp_path / "bigbio.jsonl", bigbio))


def test_ids_that_are_numbers_have_no_point(tmp_path):
    pq.write_table(
        pa.table({"text": ["x"], "label": ["a"], "id": pa.array([17.0])}), tmp_path / "train.parquet"
    )
    assert [one.id for one in examples(Table(id="id"), tmp_path / "train.parquet")] == ["17"]


def test_a_blank_flag_is_not_set_in_every_kind_of_table(tmp_path):
    written(tmp_path / "train.csv", "text,ICU,ER\nx,,1\n")
    written(tmp_path / "train.jsonl", '{"text": "x", "ICU": NaN, "ER": true}\n')
    columns = {"text": ["x"], "ICU": pa.array([None], pa.int64()), "ER": pa.array([1.0])}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        read = examples(Table(flags=("ICU", "ER")), tmp_path / f"train.{suffix}")
        assert [one.labels for one in read] == [("ER",)]


def test_a_tsv_with_quoted_line_breaks_is_refused_with_the_setting_that_reads_it(tmp_path):
    file = written(tmp_path / "train.tsv", 'text\tlabel\n"two\nlines"\tx\n')
    with pytest.raises(UserError, match=r"train\.tsv line 2 has 1 cells, not 2; .*set `quoted: true`"):
        examples(Table(), file)
    assert [one.text for one in examples(Table(quoted=True), file)] == ["two\nlines"]


def test_tables_of_every_kind_give_the_same(tmp_path):
    rows = [{"text": 'a "quoted" text', "label": "1"}, {"text": "another", "label": "0"}]
    written(tmp_path / "train.tsv", 'text\tlabel\r\na "quoted" text\t1\r\nanother\t0\r\n')
    written(tmp_path / "train.csv", 'text,label\n"a ""quoted"" text",1\nanother,0\n')
    written(tmp_path / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    for suffix in ("tsv", "csv", "jsonl", "parquet"):
        read = examples(Table(), tmp_path / f"train.{suffix}")
        assert [(one.id, one.text, one.labels) for one in read] == [
            ("train:1", 'a "quoted" text', ("1",)),
            ("train:2", "another", ("0",)),
        ]


def test_a_table_can_have_flags_lists_and_cells_of_labels(tmp_path):
    flags = written(tmp_path / "flags.csv", "text,PAIN,FEVER\nx,1,0\ny,0.0,1.0\n")
    assert [one.labels for one in examples(Table(flags=("PAIN", "FEVER")), flags)] == [("PAIN",), ("FEVER",)]
    lists = written(
        tmp_path / "lists.jsonl", '{"text": "x", "label": ["a", "b"]}\n{"text": "y", "label": []}\n'
    )
    assert [one.labels for one in examples(Table(), lists)] == [("a", "b"), ()]
    cells = written(tmp_path / "cells.tsv", "text\tlabel\nx\ta;b\ny\t\n")
    assert [one.labels for one in examples(Table(separator=";"), cells)] == [("a", "b"), ()]


def test_a_cell_can_have_a_numbered_flag_for_each_label(tmp_path):
    form = Table(numbered_flags=("a", "b"))
    file = written(tmp_path / "train.tsv", "text\tlabel\nx\t0_0,1_1\ny\t1_0,0_0\n")
    assert [one.labels for one in examples(form, file)] == [("b",), ()]
    for cell in ("0_1", "0_1,1_2", "0_1,1_0,2_0"):
        with pytest.raises(
            UserError, match=r"train\.tsv line 2: the labels \(\d+ characters\) are not of the form"
        ):
            examples(form, written(tmp_path / "train.tsv", f"text\tlabel\nx\t{cell}\n"))


def test_sentences_of_a_document_are_joined_and_their_labels_united(tmp_path):
    file = written(tmp_path / "train.tsv", "text\tlabel\tid\nOne.\ta\t7_s0\nTwo.\tb\t7_s1\nThree.\ta\t8_s0\n")
    read = examples(Table(id="id", document=r"(\d+)_s\d+"), file)
    assert [(one.id, one.text, one.labels) for one in read] == [
        ("7", "One. Two.", ("a", "b")),
        ("8", "Three.", ("a",)),
    ]


def test_one_file_can_hold_all_splits(tmp_path, monkeypatch):
    file = written(tmp_path / "all.csv", "text,label,part\nx,1,train\ny,0,dev\nz,0,test\n")
    form = Table(split="part")
    with file.open("a") as more:
        more.write("v,1,Training\nw,0,unlabelled\nu,0,\n")
    assert [
        [one.text for one in examples(form, file, split)] for split in ("train", "validation", "test")
    ] == [
        ["x", "v", ""],
        ["y"],
        ["z"],
    ]
    read = Mock(wraps=read_records)
    monkeypatch.setattr("clm_detour.evaluate.formats.table.read_records", read)
    assert [one.left_out for one in examples(form, file)] == [(), (), ("rows of no split",) * 2]
    assert read.call_count == 1


def test_a_dataset_of_the_hub_gives_labels_or_tagged_words(tmp_path):
    words = {"tokens": [["of", "lung", "cancer"]], "ner_tags": [[0, 1, 2]], "text": ["t"], "label": [3]}
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(pa.table(words), folder / "train.parquet")
    form = Hub(path=str(folder), words="tokens", tag_names=("O", "B-D", "I-D"))
    (file,) = form.find(tmp_path, "train")
    assert found(form, file) == [[("lung cancer", "D")]]
    assert [one.labels for one in examples(Hub(path=str(folder)), file)] == [("3",)]
    for names in ((), ("O", "B-D")):
        with pytest.raises(UserError, match=r"row 1: the tag \d is none of . names; set `tag_names`"):
            examples(Hub(path=str(folder), words="tokens", tag_names=names), file)


def tagged_dataset(folder: Path, *rows: dict) -> list:
    """Of some rows with words and tags, what the form of the hub gives."""
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "train.parquet")
    form = Hub(path=str(folder), words="tokens", tag_names=("O", "B-D", "I-D"))
    return examples(form, form.find(folder, "train")[0])


@pytest.mark.parametrize(
    ("words", "tags", "text", "entities"),
    [
        (["flu", "", "now"], [1, 2, 0], "flu now", [((0, 3),)]),
        (["", "flu", "now"], [1, 2, 0], "flu now", [((0, 3),)]),
        (["lung", "\u00a0", "cancer"], [1, 2, 2], "lung cancer", [((0, 11),)]),
        (["flu", "", "gout"], [1, 0, 2], "flu gout", [((0, 3),), ((4, 8),)]),
        ([" flu ", "now"], [1, 0], "flu now", [((0, 3),)]),
    ],
)
def test_empty_words_of_the_hub_have_no_place_in_text_or_entities(tmp_path, words, tags, text, entities):
    (one,) = tagged_dataset(tmp_path / "set", {"tokens": words, "ner_tags": tags})
    assert one.text == text
    assert [annotation.fragments for annotation in one.annotations] == entities
    assert [text[start:end] for start, end in one.words] == [word for word in map(str.strip, words) if word]


def test_an_entity_of_empty_words_and_a_row_without_words_are_counted(tmp_path):
    one, none = tagged_dataset(
        tmp_path / "set",
        {"tokens": ["", "now"], "ner_tags": [1, 0]},
        {"tokens": [], "ner_tags": []},
    )
    assert (one.annotations, one.left_out) == ((), ("annotations on empty words",))
    assert none.text == ""


def test_tags_of_the_hub_may_be_numbers_with_a_point_but_not_missing(tmp_path):
    (one,) = tagged_dataset(tmp_path / "a", {"tokens": ["flu", "now"], "ner_tags": [1.0, 0.0]})
    assert [annotation.fragments for annotation in one.annotations] == [((0, 3),)]
    for number, tag in enumerate((None, float("nan"), 0.5, -1.0)):
        with pytest.raises(UserError, match=r"row 1: the tag \S+ is none of 3 names"):
            tagged_dataset(tmp_path / f"b{number}", {"tokens": ["flu", "x"], "ner_tags": [1.0, tag]})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tokens": "of cancer", "ner_tags": [0, 1]}, "tokens is not a list"),
        ({"tokens": ["of", "cancer"], "ner_tags": "OB"}, "ner_tags is not a list"),
        ({"tokens": ["of", "cancer"], "ner_tags": [0]}, "has 2 words in tokens but 1 tags in ner_tags"),
        ({"tokens": [1, 2], "ner_tags": [0, 1]}, "tokens has an entry that is not text"),
        ({"tokens": None, "ner_tags": [0, 1]}, "tokens is not a list"),
    ],
)
def test_columns_of_the_hub_that_are_not_words_and_their_tags_are_refused(tmp_path, row, said):
    (tmp_path / "set").mkdir()
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "set" / "train.parquet")
    form = Hub(path=str(tmp_path / "set"), words="tokens", tag_names=("O", "B-D"))
    with pytest.raises(UserError, match=rf"row 1:? ?{said}"):
        examples(form, form.find(tmp_path, "train")[0])


I2B2_2014 = """<?xml version="1.0" encoding="UTF-8" ?>
<deIdi2b2>
<TEXT><![CDATA[Record date: 2069-04-07
Seen by Dr. Villegas & team.]]></TEXT>
<TAGS>
<DATE id="P0" start="13" end="23" text="2069-04-07" TYPE="DATE" comment="" />
<NAME id="P1" start="36" end="44" text="Villegas" TYPE="DOCTOR" comment="" />
</TAGS>
</deIdi2b2>
"""
I2B2_2006 = """<?xml version="1.0"?>
<ROOT>
<RECORD ID="1"><TEXT>Seen on <PHI TYPE="DATE">04/07</PHI> by <PHI TYPE="DOCTOR">Villegas</PHI> &amp; team.</TEXT></RECORD>
<RECORD ID="2"><TEXT>Nothing.</TEXT></RECORD>
</ROOT>
"""


def test_the_xml_of_i2b2_2014_has_offsets_into_its_text(tmp_path):
    file = written(tmp_path / "220-01.xml", I2B2_2014)
    assert found(I2b2(), file) == [[("2069-04-07", "DATE"), ("Villegas", "DOCTOR")]]
    assert found(I2b2(attribute="group"), file) == [[("2069-04-07", "DATE"), ("Villegas", "NAME")]]


def test_the_xml_of_i2b2_2006_has_tags_in_its_text(tmp_path):
    file = written(tmp_path / "deid_surrogate_train_all_version2.xml", I2B2_2006)
    assert found(I2b2(), file) == [[("04/07", "DATE"), ("Villegas", "DOCTOR")], []]
    assert [one.text for one in examples(I2b2(), file)] == ["Seen on 04/07 by Villegas & team.", "Nothing."]


PHYSIONET = (
    "\nSTART_OF_RECORD=1||||2||||\nNeuro: seen by Dr. Hilt on 7/23.\nDaughter Ann called. \n||||END_OF_RECORD\n\n"
    "START_OF_RECORD=3||||1||||\nIn Calvert at 2 Elm St. W.\n||||END_OF_RECORD\n"
)
MASKED = (
    "\nSTART_OF_RECORD=1||||2||||\nNeuro: seen by Dr. [**Last Name (STitle) 12**] on [**01-23**].\n"
    "Daughter [**Name (NI)**] called. \n||||END_OF_RECORD\n\n"
    "START_OF_RECORD=3||||1||||\nIn [**Hospital1 5**] at [**Street Address 2**].\n||||END_OF_RECORD\n"
)


def test_physionets_marks_stand_for_what_the_text_has_in_their_place(tmp_path):
    file = written(tmp_path / "id.text", PHYSIONET)
    written(tmp_path / "id.res", MASKED)
    form = PhysioNet()
    assert [one.id for one in examples(form, file)] == ["1#2", "3#1"]
    assert found(form, file) == [
        [("Hilt", "name"), ("7/23", "date"), ("Ann", "name")],
        [("Calvert", "location"), ("2 Elm St. W", "location")],
    ]


def test_bigbios_passages_make_up_the_text_that_its_entities_point_into(tmp_path):
    passages = [
        {"text": ["Of cancer."], "offsets": [[0, 10]]},
        {"text": ["Lung and skin cancer."], "offsets": [[11, 32]]},
    ]
    entities = [
        {"id": "1", "type": "Disease", "text": ["cancer"], "offsets": [[3, 9]]},
        {"id": "2", "type": "Disease", "text": ["Lung", "cancer"], "offsets": [[11, 15], [25, 31]]},
    ]
    record = {"document_id": "17", "passages": passages, "entities": entities}
    file = written(tmp_path / "train.jsonl", json.dumps(record) + "\n")
    assert [one.id for one in examples(BigBio(), file)] == ["17"]
    assert found(BigBio(), file) == [[("cancer", "Disease"), ("Lung cancer", "Disease")]]
    passages[0]["offsets"] = [[0, 12]]
    written(file, json.dumps(record) + "\n")
    with pytest.raises(UserError, match=r"train\.jsonl line 1: the passage at 0 12 does not fit"):
        examples(BigBio(), file)


PASSAGE = {"text": ["Of cancer."], "offsets": [[0, 10]]}
ENTITY = {"id": "E1", "type": "Disease", "text": ["cancer"], "offsets": [[3, 9]]}
WRONG = {
    "text": (None, "cancer", [], [3]),
    "offsets": (None, 3, [3, 9], [[3]], [["3", "9"]], [[3, 9], [3, 9]]),
    "type": (None, 3),
}


@pytest.mark.parametrize(
    ("what", "key", "value"),
    [
        (what, key, value)
        for what in ("passage", "entity")
        for key, values in WRONG.items()
        for value in values
        if (what, key) != ("passage", "type")
    ],
)
def test_a_bigbio_passage_or_entity_that_is_not_whole_is_named(tmp_path, what, key, value):
    parts = {"passage": dict(PASSAGE), "entity": dict(ENTITY)}
    parts[what][key] = value
    if value is None:
        del parts[what][key]
    record = {"document_id": "17", "passages": [parts["passage"]], "entities": [parts["entity"]]}
    file = written(tmp_path / "train.jsonl", json.dumps(record) + "\n")
    where = "entity E1" if what == "entity" else "a passage"
    with pytest.raises(
        UserError, match=rf"train\.jsonl line 1, {where} has no {key}\b.*; get the data set again"
    ):
        examples(BigBio(), file)


@pytest.mark.parametrize("key", ["passages", "entities"])
@pytest.mark.parametrize("value", [None, "x", ["x"]])
def test_a_bigbio_record_without_passages_or_entities_is_named(tmp_path, key, value):
    record = {"document_id": "17", "passages": [PASSAGE], "entities": [ENTITY], key: value}
    file = written(tmp_path / "train.jsonl", json.dumps(record) + "\n")
    with pytest.raises(UserError, match=rf"train\.jsonl line 1: {key} is not a list of objects"):
        examples(BigBio(), file)


CHEMPROT = {
    "abstracts": "17\tAspirin and COX-1.\tAspirin inhibits COX-1 and COX-2. Zinc is not 3.5 mM. No gene here.\n",
    "entities": (
        "17\tT1\tCHEMICAL\t0\t7\tAspirin\n17\tT2\tGENE-Y\t12\t17\tCOX-1\n17\tT3\tCHEMICAL\t19\t26\tAspirin\n"
        "17\tT4\tGENE-Y\t36\t41\tCOX-1\n17\tT5\tGENE-N\t46\t51\tCOX-2\n17\tT6\tCHEMICAL\t53\t57\tZinc\n"
    ),
    "gold_standard": "17\tCPR:4\tArg1:T3\tArg2:T4\n",
}


def test_biocreatives_chemprot_has_an_example_for_each_pair_of_a_sentence(tmp_path):
    for name, content in CHEMPROT.items():
        written(tmp_path / f"chemprot_training_{name}.tsv", content)
    read = examples(BioCreative("*abstracts.tsv"), tmp_path / "chemprot_training_abstracts.tsv")
    assert [(one.id, one.text, one.labels) for one in read] == [
        ("17#T1.T2", "BC6ENTC and BC6ENTG.", ("False",)),
        ("17#T3.T4", "BC6ENTC inhibits BC6ENTG and BC6OTHER.", ("CPR:4",)),
        ("17#T3.T5", "BC6ENTC inhibits BC6OTHER and BC6ENTG.", ("False",)),
    ]


def test_biocreatives_blank_lines_and_blanks_at_line_ends_do_not_count_and_lost_relations_are_counted(
    tmp_path,
):
    for name, content in CHEMPROT.items():
        padded = content.replace("\n", " \r\n") + " \r\n"
        if name == "gold_standard":
            padded += "17\tCPR:3\tArg1:T3\tArg2:T4\n17\tCPR:9\tArg1:T1\tArg2:T5\n"
        written(tmp_path / f"chemprot_training_{name}.tsv", padded)
    *pairs, rest = examples(BioCreative("*abstracts.tsv"), tmp_path / "chemprot_training_abstracts.tsv")
    assert [one.labels for one in pairs] == [("False",), ("CPR:3",), ("False",)]
    assert rest.text == ""
    assert rest.left_out == ("relations beside another of the same pair", "relations across sentences")


def test_a_tag_of_i2b2_inside_another_and_a_mark_of_physionet_without_text_are_counted(tmp_path):
    text = '<R><RECORD ID="1"><TEXT><PHI TYPE="DATE">4 <PHI TYPE="ID">7</PHI></PHI>.</TEXT></RECORD></R>'
    (one,) = examples(I2b2(), written(tmp_path / "a.xml", text))
    assert (len(one.annotations), one.left_out) == (1, ("annotations inside another tag",))
    written(tmp_path / "id.text", PHYSIONET)
    written(tmp_path / "id.res", MASKED.replace("called.", "called[**Pager number 1**]."))
    first, second = examples(PhysioNet(), tmp_path / "id.text")
    assert (len(first.annotations), first.left_out) == (3, ("marks without text",))
    assert second.left_out == ()


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        ("Known patient lastname 1", "name"),
        ("Telephone/Fax (1) 5", "phone_nb"),
        ("Age over 90 ", "age"),
        ("2101-12-1", "date"),
        ("Date range (1) 2", "date"),
        ("E-mail address 3", "other"),
        ("Company 4", "other"),
        ("", "other"),
    ],
)
def test_physionets_marks_are_of_six_kinds(mark, expected):
    assert type_of(mark) == expected


@pytest.mark.parametrize(
    ("form", "files", "said"),
    [
        (Conll(), {"a.tsv": ""}, "a.tsv is empty"),
        (Conll(), {"a.tsv": "x\tO\nlonely\n"}, "a.tsv line 2 (6 characters) is not a word and its tag"),
        (Conll(), {"a.tsv": "x\tB-A\n\ny\tdisease\n"}, "a.tsv line 3 has no tag like O"),
        (Conll(), {"a.tsv": "x\tB\n"}, "a.tsv line 1: the tag B names no entity type"),
        (Brat(), {"a.txt": "x"}, "a.txt has no a.ann"),
        (Brat(), {"a.txt": " ", "a.ann": ""}, "a.txt is empty"),
        (
            Brat(),
            {"a.txt": "x", "a.ann": "#1\tN T1\tx\nT1\tA 0\tx\n"},
            "a.ann line 2 (8 characters) is not an annotation",
        ),
        (Table(), {"a.tsv": "text\tlabel\n"}, "a.tsv is empty"),
        (
            Table(),
            {"a.tsv": "sentence\tlabel\nx\t1\n"},
            "a.tsv line 2 has no field 'text' among its 2 columns; is the file's first line a header?",
        ),
        (
            Table(),
            {"a.jsonl": '{"txet": "x", "label": 1}\n'},
            "a.jsonl line 1 has no field 'text'; its fields: 'txet', 'label'; did you mean 'txet'?",
        ),
        (Table(), {"a.tsv": "text\tlabel\nx\t1\ny\n"}, "a.tsv line 3 has 1 cells"),
        (Table(), {"a.jsonl": '{"text": "x", "label": 1}\n{"text": \n'}, "a.jsonl line 2 is not valid JSON"),
        (Table(), {"a.jsonl": '{"text": " ", "label": 1}\n'}, "a.jsonl line 1 has no text"),
        (Table(flags=("A",)), {"a.csv": "text,A\nx,maybe\n"}, "a.csv line 2: A is neither 0 nor 1"),
        (
            Table(id="id", document=r"(\d+)_"),
            {"a.csv": "text,label,id\nx,1,k\n"},
            "a.csv line 2: id names no document",
        ),
        (I2b2(), {"a.xml": "<a>\n<b>\n</a>"}, "a.xml line 3 is not valid XML"),
        (I2b2(), {"a.xml": "<a><TAGS/></a>"}, "a.xml has no text"),
        (
            I2b2(),
            {"a.xml": "<a><TEXT>x</TEXT><TAGS><D id='P1' end='1'/></TAGS></a>"},
            "tag P1 has no start and end",
        ),
        (PhysioNet(), {"a.text": PHYSIONET}, "has no a.res"),
        (BioCreative("*"), {"a_abstracts.tsv": "1\ta\tb"}, "has no a_entities.tsv"),
        (
            BioCreative("*"),
            {"a_abstracts.tsv": "1\ta\tb", "a_entities.tsv": "1\tT1\n"},
            "a_entities.tsv line 1 has 2 cells",
        ),
        (PhysioNet(), {"a.text": "nothing", "a.res": MASKED}, "no record"),
        (
            PhysioNet(),
            {"a.text": PHYSIONET.replace("Neuro", "Resp"), "a.res": MASKED},
            "a.text line 2: the note and its",
        ),
        (PhysioNet(), {"a.text": PHYSIONET, "a.res": MASKED.replace("=3", "=4")}, "no note 1 of patient 3"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_its_place(tmp_path, form, files, said):
    paths = [written(tmp_path / name, content) for name, content in files.items()]
    with pytest.raises(UserError) as error:
        examples(form, paths[0])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"x\tO\n\xff\tO\n")
    with pytest.raises(UserError, match=r"a\.tsv line 2 is not valid UTF-8"):
        examples(Conll(), tmp_path / "a.tsv")


def test_splits_are_found_under_their_usual_names(tmp_path):
    for name in ("training.tsv", "train_dev.tsv", "devel.tsv", "test.tsv", "README.tsv", "._test.tsv"):
        written(tmp_path / name, "x\tO\n")
    names = [
        [path.name for path in split_files(tmp_path, "{split}.tsv", split)]
        for split in ("train", "validation", "test")
    ]
    assert names == [["training.tsv"], ["devel.tsv"], ["test.tsv"]]
    assert split_files(tmp_path, "{split}.csv", "train") == []
    (tmp_path / ".ipynb_checkpoints").mkdir()
    written(tmp_path / ".ipynb_checkpoints" / "devel.tsv", "x\tO\n")
    assert split_files(tmp_path, "**/{split}.tsv", "validation") == [tmp_path / "devel.tsv"]
    everything = [path.name for path in split_files(tmp_path, "*.tsv", "train")]
    assert everything == ["devel.tsv", "test.tsv", "train_dev.tsv", "training.tsv"]

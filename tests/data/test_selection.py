"""Which records of a source become documents, how often, and that the rest is counted by reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import read_all, read_rest, write

from clm_detour.config.schema import Source
from clm_detour.data.sources import check_first_record, documents, lines, parquet, read_documents, units
from clm_detour.data.sources.selection import Selection, replace_marks, whole_copies
from clm_detour.utils.errors import UserError

SENTENCE = "Aspirin inhibits the synthesis of prostaglandins in twelve of the thirteen patients studied."


def write_lines(path: Path, records: list[dict[str, Any]]) -> str:
    return write(path, "".join(json.dumps(record) + "\n" for record in records))


def texts_of(path: Path, texts: list[str]) -> str:
    return write_lines(path, [{"text": text} for text in texts])


@pytest.fixture
def biomed_enriched(tmp_path) -> str:
    """Paragraphs with the columns of Biomed-Enriched."""
    columns = {
        "article_id": [f"PMC{number}" for number in range(6)],
        "text": [f"Paragraph {number}." for number in range(6)],
        "language": ["en", "en", "fr", "en", "en", "en"],
        "domain": ["clinical", "biomedical", "clinical", "clinical", "other", "clinical"],
        "document_type": ["Clinical case", "Study", "Clinical case", "Other", "Other", "Clinical case"],
        "educational_score": [3.0, 4.2, 4.0, 3.5, 2.9, None],
        "authors": [["A"]] * 6,
    }
    pq.write_table(pa.table(columns), tmp_path / "commercial-00000.parquet")
    return str(tmp_path / "commercial-00000.parquet")


def test_records_are_filtered_by_their_columns_and_repeated_by_condition(biomed_enriched):
    settings = {
        "where": "educational_score >= 3 and language == 'en'",
        "repeat": {"document_type == 'Clinical case'": 100, "domain == 'clinical'": 10},
    }
    texts, counts = read_rest(biomed_enriched, **settings)
    assert Counter(texts) == {"Paragraph 0.": 100, "Paragraph 1.": 1, "Paragraph 3.": 10}
    assert texts == sorted(texts)
    assert counts == {"where": 3}


@pytest.mark.parametrize(
    ("settings", "kept", "reason"),
    [
        ({"min_characters": 4}, ["a b c", "four words are here"], "too short"),
        ({"max_characters": 5}, ["a", "a b c"], "too long"),
        ({"min_words": 3}, ["a b c", "four words are here"], "too short"),
        ({"max_words": 3}, ["a", "a b c"], "too long"),
    ],
)
def test_limits_are_inclusive_and_counted(tmp_path, settings, kept, reason):
    path = texts_of(tmp_path / "a.jsonl", ["a", "a b c", "four words are here"])
    assert read_rest(path, **settings) == (kept, {reason: 1})


def test_of_equal_texts_the_first_is_kept_over_all_files_and_before_copies(tmp_path):
    texts_of(tmp_path / "a.jsonl", ["one", "two", "one"])
    texts_of(tmp_path / "b.jsonl.gz", ["two", "three", "One"])
    texts, counts = read_rest(tmp_path, deduplicate=True, repeat={"text == 'one'": 2})
    assert texts == ["one", "one", "two", "three", "One"]
    assert counts == {"duplicate": 2}


def test_documents_with_a_run_of_words_of_an_evaluation_are_left_out(tmp_path):
    (tmp_path / "tasks").mkdir()
    tokens = [word + "\tO" for word in SENTENCE.removesuffix(".").split()]
    evaluations = {
        "a.tsv": f"index\tsentence\tlabel\n1\t{SENTENCE}\tyes\n",
        "b.conll": "-DOCSTART-\n\n"
        + "\n".join(tokens[:5])
        + "\n\n"
        + "\n".join([*tokens[5:], ".\tO"])
        + "\n",
        "c.jsonl.gz": json.dumps({"id": 1, "turns": [{"value": SENTENCE}]}) + "\n",
        "d.txt": SENTENCE,
    }
    for name, content in evaluations.items():
        write(tmp_path / "tasks" / name, content)
    pq.write_table(pa.table({"note": [SENTENCE]}), tmp_path / "tasks" / "e.parquet")
    path = texts_of(tmp_path / "a.jsonl", ["clean", f"It is known: {SENTENCE.upper()}", SENTENCE[30:]])
    for name in [*evaluations, "e.parquet", "*.tsv", ""]:
        settings = {"decontaminate": [str(tmp_path / "tasks" / name)]}
        assert read_rest(path, **settings) == (["clean", SENTENCE[30:]], {"contaminated": 1})
    assert read_rest(path, decontaminate=[str(tmp_path / "tasks" / "d.txt")], ngram=3)[1] == {
        "contaminated": 2
    }


XML_TASKS = {
    "2014.xml": "<note><TEXT><![CDATA[On the ward: {}]]></TEXT><TAGS><D start='1'/></TAGS></note>",
    "2006.xml.gz": "<ROOT><RECORD><TEXT>Seen. {}</TEXT></RECORD></ROOT>",
    "apart.xml": "<set><s>Before</s><s>{}</s><s>After</s></set>",
}


@pytest.mark.parametrize("name", XML_TASKS)
def test_xml_of_tasks_is_an_evaluation_whatever_its_elements(tmp_path, name):
    tagged = SENTENCE.replace("prostaglandins", "<PHI TYPE='X'>prosta</PHI>glandins")
    within = tagged if name == "2006.xml.gz" else SENTENCE
    evaluation = write(tmp_path / name, XML_TASKS[name].format(within))
    path = texts_of(tmp_path / "a.jsonl", ["clean", SENTENCE])
    assert read_rest(path, decontaminate=[evaluation]) == (["clean"], {"contaminated": 1})
    assert read_rest(path, decontaminate=[evaluation], ngram=2)[1] == {"contaminated": 1}


def test_an_evaluation_that_cannot_be_read_is_an_error_even_when_bad_records_are_skipped(tmp_path):
    path = texts_of(tmp_path / "a.jsonl", ["text"])
    write(tmp_path / "bad.jsonl", "{patient-name")
    write(tmp_path / "bad.xml", "<set><s>patient-name</set>")
    for name, message in (
        ("bad.jsonl", "line 1 is not valid JSON"),
        ("bad.xml", "not well-formed XML"),
        ("absent.tsv", "does not exist"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            read_rest(path, decontaminate=[str(tmp_path / name)])
        assert "patient-name" not in str(caught.value)


@given(st.integers(0, 20), st.floats(0.01, 5))
def test_a_number_of_copies_is_right_on_average_and_depends_on_the_text_alone(shift, copies):
    drawn = [whole_copies(f"text {shift} {number}", copies) for number in range(200)]
    assert drawn == [whole_copies(f"text {shift} {number}", copies) for number in range(200)]
    assert set(drawn) <= {int(copies), int(copies) + 1}
    assert abs(sum(drawn) / 200 - copies) < 0.25


def test_texts_drawn_less_than_once_are_counted(tmp_path):
    path = texts_of(tmp_path / "a.jsonl", [f"text {number}" for number in range(1000)])
    texts, counts = read_rest(path, repeat={"True": 0.3})
    assert len(texts) == len(set(texts))
    assert 230 < len(texts) < 370
    assert counts == {"not drawn": 1000 - len(texts)}


@given(st.text("ab [*]_ \n", max_size=30), st.sampled_from(["", "X", r"\1"]))
def test_only_marks_are_replaced(text, word):
    if "[**" not in text and "___" not in text:
        assert replace_marks(text, word) == text
    framed = replace_marks(f"{text.replace('_', '').replace('[', '')}|[** a\nb **]|___|____|", word)
    assert framed.endswith(f"|{word}|{word}|____|")


def test_marks_that_are_never_closed_cost_no_more_time_than_the_text_is_long():
    assert replace_marks("[** " * 200_000, "") == "[** " * 200_000


def test_a_document_that_is_only_marks_is_empty_without_them(tmp_path):
    path = texts_of(tmp_path / "a.jsonl", ["[** a **] ___", "text"])
    assert read_rest(path, deidentified="") == (["text"], {"empty": 1})


@pytest.mark.parametrize(
    ("record", "reason", "message"),
    [
        ({"text": "patient-name"}, "no such field", "line 2 has no field 'score'; its fields: 'text'"),
        ({"text": "patient-name", "score": []}, "not comparable", "line 2: a value is of a kind that"),
        ({"text": ["patient-name"], "score": 5}, "text not a string", "line 2: 'text' is list"),
        ({"text": "patient-name\0", "score": 5}, "NUL character", "line 2: 'text' has a NUL character"),
    ],
)
def test_a_record_that_does_not_fit_the_settings_stops_or_is_counted(tmp_path, record, reason, message):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "good", "score": 3}, record])
    with pytest.raises(UserError, match=message) as caught:
        read_all(path, where="score >= 3")
    assert "patient-name" not in str(caught.value)
    assert read_rest(path, where="score >= 3") == (["good"], {reason: 1})


def test_what_was_left_out_is_said_when_nothing_is_left(tmp_path):
    path = texts_of(tmp_path / "a.jsonl", ["a", "b c", " "])
    with pytest.raises(UserError, match=r"holds no document \(1 x empty, 1 x too short, 1 x where\)"):
        read_all(path, where="text != 'a'", min_words=3)


@pytest.mark.parametrize("document", ["line", "paragraph", "file"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet"])
def test_units_read_alone_give_the_whole_in_order_and_its_bytes(tmp_path, monkeypatch, name, document):
    for module in (lines, parquet):
        monkeypatch.setattr(module, "UNIT_BYTES", 1000)
    texts = [f"déjà {number} " * (1 + number % 50 * (number % 7 == 0)) for number in range(300)]
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=10)
    elif name == "a.jsonl":
        texts_of(path, texts)
    else:
        write(path, "\n".join(texts))
    source = Source(path=str(path), document=document)
    selection = Selection.of(source)
    parts = units(source)
    assert len(parts) > 3 or name == "a.txt"
    seen: list[int] = []
    found = {
        unit: [text for text, _ in documents(unit, selection, "stop", Counter(), seen.append)]
        for unit in reversed(parts)
    }
    joined = [text for unit in parts for text in found[unit]]
    assert joined == list(read_documents(source))
    assert "".join(joined).replace("\n", "") == "".join(texts)
    assert sum(unit.size for unit in parts) == sum(seen) == path.stat().st_size


def test_wherever_a_file_is_cut_each_line_is_read_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", "a\nbc\n\ndéf\r\n" + "long " * 10 + "\nend")
    whole = read_all(path, document="line")
    assert len(whole) == 5
    for unit_bytes in range(1, 30):
        monkeypatch.setattr(lines, "UNIT_BYTES", unit_bytes)
        assert read_all(path, document="line") == whole, f"units of {unit_bytes} bytes"


def test_a_row_in_a_later_part_of_a_parquet_file_has_its_number_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "UNIT_BYTES", 100)
    texts = [f"text {number}" for number in range(100)]
    texts[70] += "\0"
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=10)
    assert len(units(Source(path=str(tmp_path / "a.parquet")))) > 2
    with pytest.raises(UserError, match=r"a\.parquet row 71: 'text' has a NUL"):
        read_all(tmp_path / "a.parquet")


def test_a_place_in_a_later_part_of_a_file_can_be_found(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "UNIT_BYTES", 1000)
    path = Path(texts_of(tmp_path / "a.jsonl", [f"text {number}" for number in range(300)]))
    path.write_bytes(path.read_bytes().replace(b'"text 250"', b"broken"))
    with pytest.raises(UserError, match=r"a\.jsonl line \d+ after byte \d+ is not valid JSON") as caught:
        read_all(path)
    number, _, _, start = str(caught.value).split(" is not")[0].split("line ")[1].split()
    rest = path.read_bytes()[int(start) :].split(b"\n")
    whole_lines = rest if path.read_bytes()[int(start) - 1] == ord("\n") else rest[1:]
    assert b"broken" in whole_lines[int(number) - 1]


def test_every_setting_works_on_a_url(tmp_path):
    with fsspec.open("memory://notes/a.csv.zst", "wb", compression=None) as file:
        file.write(pa.compress(b'kind,text\nA,"two\nlines"\nB,one\n', codec="zstd", asbytes=True))
    with fsspec.open("memory://evaluation/test.txt", "wb") as file:
        file.write(b"One.")
    texts, counts = read_rest("memory://notes", decontaminate=["memory://evaluation"], ngram=1)
    assert (texts, counts) == (["two\nlines"], {"contaminated": 1})
    assert read_all("memory://notes/*.zst", where="kind == 'B'", format="csv") == ["one"]


def test_the_first_record_is_enough_to_find_a_wrong_name(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a", "score": 1}, {"text": "b"}])
    check_first_record(Source(path=path, where="score > 3"))
    for settings in ({"where": "scor > 3"}, {"template": "{text} {title}"}, {"text": "body"}):
        with pytest.raises(
            UserError, match=r"line 1 has no field '(scor|title|body)'; its fields: 'text', 'score'"
        ):
            check_first_record(Source(path=path, **settings))
    with pytest.raises(UserError, match=r"absent\.tsv does not exist"):
        check_first_record(Source(path=path, decontaminate=[str(tmp_path / "absent.tsv")]))


ARTICLE = b"<article><front><article-meta/></front></article>"
BAD_FIRST_RECORDS = [
    (
        "a.jsonl",
        b'{"text": {"body": "x"}}\n',
        r"line 1: 'text' is dict, not a string; name a field inside it",
    ),
    ("a.jsonl", b'{\n  "text": "x"\n}\n', r"has JSON over several lines, .*; jq -c \. writes it so"),
    ("a.jsonl", b'{"text": "a"}{"text": "b"}\n', r"line 1 is not valid JSON: Extra data \(column 14\)"),
    ("a.jsonl", b'{"text": "a"},\n{"text": "b"}\n', r"line 1 is not valid JSON: Extra data \(column 14\)"),
    ("a.jsonl", b'[\n  {"text": "x"},\n', r"is one JSON array, .*; jq -c '\.\[\]' writes it so"),
    ("a.json.gz", b'[{"text": "x"}]', r"is one JSON array, .*; jq -c '\.\[\]' writes it so"),
    ("a.jsonl", b'{"text": "x', r"line 1 is not valid JSON: .*; the line ends before its object does"),
    ("a.jsonl", b'{"text": "x",', r"line 1 is not valid JSON: .*; the line ends before its object does"),
    ("a.jsonl", b"{'text': 'x'}\n", r"line 1 is not valid JSON: Expecting property name .*\(column 2\);"),
    ("a.jsonl", b'{"body": "x"}\n', r"line 1 has no field 'text'; its fields: 'body'\.$"),
    ("a.jsonl", b'{"text": null}\n', r"line 1: 'text' is null, not a string"),
    ("a.jsonl", b"", "holds no record"),
    ("a.jsonl.zst", b"\n\n", "holds no record"),
    ("a.csv", b"text\n", "holds no record"),
    ("a.csv", b'text\n"x', "line 2 begins a record that cannot be read as CSV"),
    ("a.xml", ARTICLE, r"is XML, but not of PubMed: it opens with article, as JATS does"),
    ("a.xml", b"<PubmedArticleSet><Pubmed", "is not well-formed XML after article 0"),
    ("a.parquet", b"PAR1", r"is not a sound parquet file after row 0 \("),
]


@pytest.mark.parametrize(("name", "content", "said"), BAD_FIRST_RECORDS)
def test_any_bad_first_record_is_found_with_its_reason(tmp_path, name, content, said):
    with pytest.raises(UserError, match=said):
        check_first_record(Source(path=write(tmp_path / name, content)))


WHOLE_FILES = [
    ("a.jsonl", b'[{"text": "x"}]'),
    ("a.jsonl", b'{\n  "text": "x"\n}\n'),
    ("a.jsonl", '{"text": "x"}\n{"text": "y"}\n'.encode("utf-16")),
    ("a.csv", "text\nx\n".encode("utf-16")),
    ("a.txt", "x\n".encode("utf-16")),
    ("a.jsonl.gz", b'{"text": "x"}\n'),
    ("a.xml", ARTICLE),
    ("a.parquet", b"PAR1"),
]


@pytest.mark.parametrize(("name", "content"), WHOLE_FILES)
def test_skipping_is_no_remedy_where_nothing_of_a_file_can_be_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    source = Source(path=str(tmp_path / name))
    for read in (check_first_record, lambda source: list(read_documents(source))):
        with pytest.raises(UserError, match=r"; repair it\.$"):
            read(source)
    with pytest.raises(UserError, match="holds no document"):
        list(read_documents(source, on_error="skip"))


def test_skipping_is_a_remedy_for_a_bad_record_among_others(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": 1}\n{"text": "x"}\n')
    with pytest.raises(UserError, match="repair it, or leave such records out with on_error: skip"):
        list(read_documents(path))
    assert list(read_documents(path, on_error="skip")) == ["x"]


def test_a_bad_first_record_that_is_skipped_and_an_empty_first_file_are_no_mistakes(tmp_path):
    write(tmp_path / "a.jsonl", "")
    write(tmp_path / "b.jsonl", '{"text": 1}\n{"text": "x"}\n')
    check_first_record(Source(path=str(tmp_path)), "skip")
    with pytest.raises(UserError, match=r"b\.jsonl line 1: 'text' is int"):
        check_first_record(Source(path=str(tmp_path)))


@pytest.mark.shared
def test_real_notes_of_one_specialty(shared_data):
    path = shared_data / "corpus" / "notes.jsonl.gz"
    texts, counts = read_rest(path, where="specialty? in ['Dermatology', 'Surgery']", deduplicate=True)
    records = [json.loads(line) for line in fsspec.open(str(path), "rt", compression="infer").open()]
    chosen = [record["text"] for record in records if record.get("specialty") in ("Dermatology", "Surgery")]
    assert texts == list(dict.fromkeys(chosen))
    assert counts["where"] == len(records) - len(chosen)
    assert counts.get("duplicate", 0) == len(chosen) - len(texts)


@pytest.mark.shared
def test_real_evaluation_sentences_are_found_in_text_that_holds_them(shared_data, tmp_path):
    tasks = [str(shared_data / "tasks" / name) for name in ("GAD/test.tsv", "NCBI-disease/test.tsv")]
    rows = [line.split("\t") for line in Path(tasks[0]).read_text(encoding="utf-8").splitlines()]
    sentences = [row[1] for row in rows[1:200]]
    long = [sentence for sentence in sentences if len(sentence.split()) > 20]
    assert len(long) > 50
    path = texts_of(tmp_path / "a.jsonl", [f"Before. {sentence} After." for sentence in long] + ["clean"])
    assert read_rest(path, decontaminate=tasks) == (["clean"], {"contaminated": len(long)})

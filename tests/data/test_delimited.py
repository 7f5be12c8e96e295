"""CSV and TSV, such as the notes of MIMIC: cells with line breaks, files of any size, broken files."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import read_all, read_rest, write

from clm_detour.config.schema import Source
from clm_detour.data.sources import Unit
from clm_detour.data.sources.readers import READERS
from clm_detour.utils.errors import UserError

MIMIC_3 = (
    '"ROW_ID","SUBJECT_ID","HADM_ID","CHARTDATE","CHARTTIME","STORETIME","CATEGORY","DESCRIPTION","CGID","ISERROR","TEXT"\n'
    '174,22532,167853,2151-08-04,,,"Discharge summary","Report",,,'
    '"Admission Date:  [**2151-7-16**]\n\nService:\n'
    'ADDENDUM: the ""patient"" of Dr. [**First Name (STitle) **], seen at [**Hospital1\n18**].\n"\n'
    '175,13702,107527,2118-06-14,,,"Discharge summary","Report",,"1","Entered in error."\n'
    '176,13702,167118,2119-05-25,,,"Nursing/other","Report",,,"Pt stable, no acute events."\n'
)
MIMIC_4 = (
    "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n"
    "10000032-DS-21,10000032,22595853,DS,21,2180-05-07 00:00:00,2180-05-09 15:26:00,"
    '" \nName:  ___    Unit No:   ___\n'
    '\nDate of Birth:  ___\n________________\n"\n'
    '10000032-AR-22,10000032,22841357,AR,22,2180-06-27 00:00:00,2180-07-01 10:15:00,"An addendum, short."\n'
)


@pytest.fixture
def notes_3(tmp_path) -> str:
    return write(tmp_path / "NOTEEVENTS.csv.gz", MIMIC_3)


@pytest.fixture
def notes_4(tmp_path) -> str:
    return write(tmp_path / "discharge.csv.gz", MIMIC_4)


def test_mimic_3_notes_of_one_category_and_without_errors(notes_3):
    (text,) = read_all(
        notes_3, text="TEXT", where="CATEGORY in ['Discharge summary', 'Radiology'] and ISERROR != 1"
    )
    assert text == (
        "Admission Date:  [**2151-7-16**]\n\nService:\n"
        'ADDENDUM: the "patient" of Dr. [**First Name (STitle) **], seen at [**Hospital1\n18**].\n'
    )
    _, counts = read_rest(notes_3, text="TEXT", where="CATEGORY == 'Nursing/other'")
    assert counts == {"where": 2}


def test_marks_of_deidentification_are_kept_removed_or_replaced(notes_3, notes_4):
    def read(word: str | None) -> tuple[str, str]:
        return (
            read_all(notes_3, text="TEXT", where="ROW_ID == 174", deidentified=word)[0].split("Service")[0],
            read_all(notes_4, where="note_type == 'DS'", deidentified=word)[0],
        )

    assert read(None)[0] == "Admission Date:  [**2151-7-16**]\n\n"
    assert read("") == (
        "Admission Date:  \n\n",
        " \nName:     Unit No:   \n\nDate of Birth:  \n________________\n",
    )
    assert read("[X]") == (
        "Admission Date:  [X]\n\n",
        " \nName:  [X]    Unit No:   [X]\n\nDate of Birth:  [X]\n________________\n",
    )
    removed = read_all(notes_3, text="TEXT", where="ROW_ID == 174", deidentified="")[0]
    assert removed.endswith("of Dr. , seen at .\n")


def test_cells_go_into_a_template(notes_4):
    (text,) = read_all(notes_4, template="{note_type} {hadm_id}: {text}", where="note_seq > 21")
    assert text == "AR 22841357: An addendum, short."


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))] * 2),
        max_size=8,
    )
)
def test_whatever_pythons_writer_writes_is_read_back(tmp_path_factory, rows):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerows([("id", "text"), *rows])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(buffer.getvalue().encode())
    expected = [text for _, text in rows if text and not text.isspace()]
    if expected:
        assert read_rest(path)[0] == expected


def test_tsv_and_quotes_that_are_ordinary_characters(tmp_path):
    path = write(tmp_path / "a.tsv.zst", 'id\ttext\n1\tthe "best" one\n2\t"open\n3\tlast\n')
    assert read_all(path, quoted=False) == ['the "best" one', '"open', "last"]
    with pytest.raises(UserError, match=r"line 3 begins a record that cannot .* set quoted: false"):
        read_all(path)
    assert read_rest(path) == (['the "best" one'], {"rest of a damaged file": 1})


def test_a_cell_may_be_longer_than_the_csv_modules_own_limit(tmp_path):
    text = "much to say\n" * 100_000
    assert read_all(write(tmp_path / "a.csv.gz", f'id,text\n1,"{text}"\n2,less\n')) == [text, "less"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ('2,"patient-name never closed\n3,c\n', r"line 3 begins .*\(unexpected end of data\)"),
        ('2,"patient-name\n3,"c"\n', r"line 3 begins .*expected after"),
    ],
)
def test_a_quote_that_is_not_closed_names_where_its_record_begins(tmp_path, broken, message):
    path = write(tmp_path / "a.csv", "id,text\n1,a\n" + broken)
    with pytest.raises(UserError, match=message) as caught:
        read_all(path)
    assert "patient-name" not in str(caught.value)
    assert read_rest(path) == (["a"], {"rest of a damaged file": 1})


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        (b"2,b,patient-name", "wrong number of cells", "line 3 has 3 cells, not 2"),
        (b"patient-name", "wrong number of cells", "line 3 has 1 cells, not 2"),
        (b'2,"two\nlines \xff"', "not UTF-8", r"line 4 is not valid UTF-8 \(byte 7 of the line\)"),
        (b"2,a\0b", "NUL character", "line 3 has a NUL character"),
    ],
)
def test_one_bad_row_stops_or_is_counted_and_is_never_quoted(tmp_path, row, reason, message):
    path = write(tmp_path / "a.csv.gz", b"id,text\n1,a\n" + row + b"\n\n3,c\n")
    with pytest.raises(UserError, match=message) as caught:
        read_all(path)
    assert "patient-name" not in str(caught.value)
    assert read_rest(path) == (["a", "c"], {reason: 1})


def test_a_truncated_file_names_the_line_and_keeps_what_came_before(tmp_path, notes_3):
    rows = "".join(f'{number},"note\n{number * 7919 % 10007}"\n' for number in range(20_000))
    content = gzip.compress(f"id,text\n{rows}".encode())
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"is damaged after line \d+"):
        read_all(path)
    texts, counts = read_rest(path)
    assert len(texts) > 5000
    assert counts == {"rest of a damaged file": 1}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id,txet", "line 1 has no field 'text' among its 2 columns; is the file's first line a header"),
        ("text,text", "names two columns alike"),
    ],
)
def test_a_header_that_does_not_fit_says_so(tmp_path, header, message):
    with pytest.raises(UserError, match=message):
        read_all(write(tmp_path / "a.csv", f"{header}\n1,a\n"))


def test_an_optional_column_may_be_missing(tmp_path):
    path = write(tmp_path / "a.csv", "prompt,response\nP,R\n")
    assert read_all(path, template="{prompt} {input?} {response}") == ["P R"]


def test_a_byte_order_mark_and_windows_line_ends_belong_to_no_cell(tmp_path):
    assert read_all(write(tmp_path / "a.csv", b"\xef\xbb\xbftext,id\r\na,1\r\nb,2\r\n")) == ["a", "b"]


def test_all_columns_are_there_when_none_is_asked_for(notes_4):
    unit = Unit(notes_4, "csv", Path(notes_4).stat().st_size)
    first, *_ = READERS["csv"].records(unit, Source(""), None, lambda _: None)
    assert (first.fields["note_id"], first.place) == ("10000032-DS-21", f"{notes_4} line 2")

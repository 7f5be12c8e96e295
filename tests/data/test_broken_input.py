"""Every fault that a file of each format can have: a sentence with file and place, or a count; never a
quotation.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import read_all, read_rest

from clm_detour.utils.errors import UserError

SECRET = "patient-name"
Writer = Callable[[Sequence[bytes]], bytes]


def jsonl(texts: Sequence[bytes]) -> bytes:
    """Whatever bytes a text has, in the place of a JSON string."""
    return b"".join(b'{"text": "' + text + b'"}\n' for text in texts)


def escaped_jsonl(texts: Sequence[bytes]) -> bytes:
    return b"".join(json.dumps({"text": text.decode()}).encode() + b"\n" for text in texts)


def delimited(delimiter: str) -> Writer:
    def write(texts: Sequence[bytes]) -> bytes:
        buffer = io.StringIO(newline="")
        rows = ((number, text.decode("latin-1")) for number, text in enumerate(texts))
        csv.writer(buffer, delimiter=delimiter).writerows([("id", "text"), *rows])
        return buffer.getvalue().encode("latin-1")

    return write


def lines(texts: Sequence[bytes]) -> bytes:
    return b"\n".join(texts) + b"\n"


def pubmed(texts: Sequence[bytes]) -> bytes:
    article = (
        b"<PubmedArticle><MedlineCitation><PMID>1</PMID><Article><ArticleTitle>%s</ArticleTitle></Article>"
        b"</MedlineCitation></PubmedArticle>\n"
    )
    return b"<PubmedArticleSet>\n" + b"".join(article % text for text in texts) + b"</PubmedArticleSet>\n"


def table(texts: Sequence[bytes]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.binary()).view(pa.string())})


def parquet(texts: Sequence[bytes]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table(texts), buffer)
    return buffer.getvalue()


def arrow(texts: Sequence[bytes]) -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table(texts).schema) as stream:
        stream.write_table(table(texts))
    return buffer.getvalue()


KINDS: dict[str, tuple[str, Writer, dict[str, str]]] = {
    "jsonl": ("a.jsonl", jsonl, {}),
    "csv": ("a.csv", delimited(","), {}),
    "tsv": ("a.tsv", delimited("\t"), {}),
    "lines": ("a.txt", lines, {"document": "line"}),
    "paragraphs": ("a.txt", b"\n\n".join, {"document": "paragraph"}),
    "pubmed": ("a.xml", pubmed, {}),
    "parquet": ("a.parquet", parquet, {}),
    "arrow": ("a.arrow", arrow, {}),
}
BAD_UTF8 = SECRET.encode() + b" \xff"
NUL = SECRET.encode() + b" \0"
ONE_LOST = ["one", "three"]
CASES = [
    # kind, bad text, place in the message, what is left, what is counted
    ("jsonl", BAD_UTF8, r"line 2 is not valid UTF-8 \(byte 24", ONE_LOST, "not UTF-8"),
    ("csv", BAD_UTF8, r"line 3 is not valid UTF-8 \(byte 16", ONE_LOST, "not UTF-8"),
    ("tsv", BAD_UTF8, r"line 3 is not valid UTF-8 \(byte 16", ONE_LOST, "not UTF-8"),
    ("lines", BAD_UTF8, r"line 2 is not valid UTF-8 \(byte 14", ONE_LOST, "not UTF-8"),
    ("paragraphs", BAD_UTF8, r"line 3 is not valid UTF-8 \(byte 14", ONE_LOST, "not UTF-8"),
    ("pubmed", BAD_UTF8, r"after article 1 .*line 3, column", ["one"], "rest of a damaged file"),
    ("parquet", BAD_UTF8, "row 2: 'text' is not valid UTF-8", ONE_LOST, "not UTF-8"),
    ("arrow", BAD_UTF8, "row 2: 'text' is not valid UTF-8", ONE_LOST, "not UTF-8"),
    ("jsonl", NUL, r"line 2 is not valid JSON: .*column 24", ONE_LOST, "broken JSON"),
    ("csv", NUL, "line 3 has a NUL character", ONE_LOST, "NUL character"),
    ("tsv", NUL, "line 3 has a NUL character", ONE_LOST, "NUL character"),
    ("lines", NUL, "line 2: 'text' has a NUL character", ONE_LOST, "NUL character"),
    ("paragraphs", NUL, "line 3: 'text' has a NUL character", ONE_LOST, "NUL character"),
    ("pubmed", NUL, r"after article 1 .*line 3, column", ["one"], "rest of a damaged file"),
    ("parquet", NUL, "row 2: 'text' has a NUL character", ONE_LOST, "NUL character"),
    ("arrow", NUL, "row 2: 'text' has a NUL character", ONE_LOST, "NUL character"),
    ("pubmed", b"patient-name & co", "after article 1 .*line 3", ["one"], "rest of a damaged file"),
    ("pubmed", b"patient-name</x>", "after article 1 .*line 3", ["one"], "rest of a damaged file"),
]


def file_of(folder: Path, kind: str, texts: Sequence[bytes]) -> tuple[Path, dict[str, str]]:
    name, written, settings = KINDS[kind]
    (folder / name).write_bytes(written(texts))
    return folder / name, settings


@pytest.mark.parametrize(("kind", "bad", "place", "left", "reason"), CASES)
def test_a_bad_text_stops_with_its_place_or_is_counted(tmp_path, kind, bad, place, left, reason):
    path, settings = file_of(tmp_path, kind, [b"one", bad, b"three"])
    with pytest.raises(UserError, match=place) as caught:
        read_all(path, **settings)
    assert path.name in str(caught.value)
    assert SECRET not in str(caught.value)
    assert read_rest(path, **settings) == (left, {reason: 1})


def test_an_escaped_nul_in_json_is_a_nul(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(escaped_jsonl([b"one", NUL, b"three"]))
    with pytest.raises(UserError, match="line 2: 'text' has a NUL character"):
        read_all(tmp_path / "a.jsonl")
    assert read_rest(tmp_path / "a.jsonl") == (ONE_LOST, {"NUL character": 1})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind][0] != "a.txt"])
@pytest.mark.parametrize("blank", [b"", b"  "])
def test_an_empty_document_is_left_out_and_counted_without_being_asked(tmp_path, kind, blank):
    path, settings = file_of(tmp_path, kind, [b"one", blank, b"three"])
    assert read_all(path, **settings) == ONE_LOST
    assert read_rest(path, **settings) == (ONE_LOST, {"empty": 1})


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "lines", "paragraphs", "pubmed"])
def test_of_a_truncated_gzip_file_whole_records_are_kept_and_the_rest_is_counted(tmp_path, kind):
    texts = [f"{SECRET} {os.urandom(30).hex()}".encode() for _ in range(4000)]
    path, settings = file_of(tmp_path, kind, texts)
    whole = gzip.compress(path.read_bytes())
    path = path.with_name(f"{path.name}.gz")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"\.gz is damaged after (line|article) \d{3,}") as caught:
        read_all(path, **settings)
    assert SECRET not in str(caught.value)
    kept, counts = read_rest(path, **settings)
    assert kept == [text.decode() for text in texts[: len(kept)]]
    assert len(kept) > 400
    assert counts == {"rest of a damaged file": 1}


def test_a_file_that_is_one_document_is_lost_whole_when_its_end_is(tmp_path):
    whole = gzip.compress(os.urandom(100_000).hex().encode())
    (tmp_path / "a.txt.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.txt").write_text("other")
    with pytest.raises(UserError, match=r"a\.txt\.gz is damaged after line 0"):
        read_all(tmp_path)
    assert read_rest(tmp_path) == (["other"], {"rest of a damaged file": 1})


def test_xml_in_an_encoding_that_nobody_knows_says_so(tmp_path):
    (tmp_path / "a.xml").write_bytes(b"<?xml version='1.0' encoding='klingon'?>" + pubmed([b"one"]))
    (tmp_path / "b.xml").write_bytes(b"<?xml version='1.0' encoding='latin-1'?>" + pubmed([b"\xe9t\xe9"]))
    with pytest.raises(UserError, match=r"a\.xml is in an encoding that cannot be read \(unknown encoding"):
        read_all(tmp_path)
    assert read_rest(tmp_path) == (["été"], {"rest of a damaged file": 1})

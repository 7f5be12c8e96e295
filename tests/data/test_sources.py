"""Reading documents: every kind of file gives the same texts, and nothing is lost unnoticed."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from reading import write

from clm_detour.data.sources import file_stamp, list_files, read_documents
from clm_detour.data.sources.files import ANY
from clm_detour.utils.errors import UserError

TEXTS = ["Aspirin 100 mg.", "Déjà vu\nà l'hôpital", "血压 120/80 😀", " leading and trailing "]
SECRET = "patient-name"


def json_lines(records: list[Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def write_parquet(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def read_all(path: str, **options: Any) -> list[str]:
    return list(read_documents(path, **options))


def skipped(path: str, **options: Any) -> tuple[list[str], dict[str, int]]:
    counts: Counter[str] = Counter()
    return read_all(path, on_error="skip", counts=counts, **options), dict(counts)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz"])
def test_every_kind_of_json_lines_gives_the_same_texts(tmp_path, suffix):
    assert (
        read_all(write(tmp_path / f"a{suffix}", json_lines([{"id": 1, "text": text} for text in TEXTS])))
        == TEXTS
    )


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_every_kind_of_parquet_string_gives_the_same_texts(tmp_path, kind):
    assert (
        read_all(write_parquet(tmp_path / "a.parquet", text=pa.array(TEXTS * 200).cast(kind))) == TEXTS * 200
    )


def test_the_text_field_can_have_any_name(tmp_path):
    assert read_all(write(tmp_path / "a.jsonl", json_lines([{"body": "x"}])), text_field="body") == ["x"]
    assert read_all(write_parquet(tmp_path / "a.parquet", body=["x"]), text_field="body") == ["x"]


def test_a_folder_is_read_in_sorted_order_and_a_glob_too(tmp_path):
    for name in ("b", "c", "a"):
        write(tmp_path / f"{name}.jsonl.gz", json_lines([{"text": name}]))
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "._a.jsonl").write_text("left behind by a file manager")
    assert read_all(str(tmp_path)) == ["a", "b", "c"]
    assert read_all(str(tmp_path / "[ab].jsonl.gz")) == ["a", "b"]
    assert list_files(str(tmp_path)) == [str(tmp_path / f"{name}.jsonl.gz") for name in "abc"]


def test_a_glob_takes_hidden_files_only_where_it_asks_for_them(tmp_path):
    (tmp_path / ".ipynb_checkpoints").mkdir()
    for name in ("a.jsonl", ".b.jsonl", "._a.jsonl", ".ipynb_checkpoints/c.jsonl"):
        write(tmp_path / name, json_lines([{"text": name}]))
    for pattern in ("", "*.jsonl", "**/*.jsonl", "?.jsonl", "*"):
        assert list_files(str(tmp_path / pattern), "jsonl") == [str(tmp_path / "a.jsonl")]
    assert list_files(str(tmp_path / "*"), ANY) == [str(tmp_path / "a.jsonl")]
    assert read_all(str(tmp_path / ".*.jsonl")) == ["._a.jsonl", ".b.jsonl"]
    assert read_all(str(tmp_path / ".ipynb_*" / "*.jsonl")) == [".ipynb_checkpoints/c.jsonl"]
    with pytest.raises(UserError, match="No file matches"):
        read_all(str(tmp_path / "*b.jsonl"))


def test_a_glob_below_a_hidden_folder_or_at_a_url_takes_no_hidden_files_either(tmp_path):
    (tmp_path / ".cache").mkdir()
    write(tmp_path / ".cache" / "a.jsonl", json_lines([{"text": "mine"}]))
    write(tmp_path / ".cache" / ".a.jsonl", json_lines([{"text": "hidden"}]))
    assert read_all(str(tmp_path / ".cache" / "*.jsonl")) == ["mine"]
    for name, text in (("a", "far away"), (".a", "hidden"), (".old/a", "old")):
        with fsspec.open(f"memory://.corpus/{name}.jsonl", "wb") as file:
            file.write(json_lines([{"text": text}]))
    assert read_all("memory://.corpus/*.jsonl") == read_all("memory://.corpus/**/*.jsonl") == ["far away"]


def test_a_url_is_read_like_a_path():
    with fsspec.open("memory://texts/a.jsonl.gz", "wb") as file:
        file.write(gzip.compress(json_lines([{"text": "far away"}])))
    assert list_files("memory://texts") == ["memory:///texts/a.jsonl.gz"]
    assert read_all("memory://texts") == read_all("memory://texts/*.gz") == ["far away"]
    assert file_stamp("memory:///texts/a.jsonl.gz")["size"] > 0


def test_a_compressed_file_of_several_members_is_read_to_the_end(tmp_path):
    for codec, name in (("gzip", "a.jsonl.gz"), ("zstd", "a.jsonl.zst")):
        parts = [
            pa.compress(json_lines([{"text": text}]), codec=codec, asbytes=True) for text in ("one", "two")
        ]
        (tmp_path / name).write_bytes(b"".join(parts))
        assert read_all(str(tmp_path / name)) == ["one", "two"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz"])
def test_zeros_around_the_members_of_a_gzip_file_are_no_damage(tmp_path, name):
    members = [gzip.compress(json_lines([{"text": text}])) for text in TEXTS]
    (tmp_path / name).write_bytes(bytes(512).join(members) + bytes(100_000))
    seen: list[int] = []
    assert read_all(str(tmp_path / name), on_bytes=seen.append) == TEXTS
    assert sum(seen) == (tmp_path / name).stat().st_size


def test_what_follows_a_gzip_file_and_is_not_zeros_is_damage(tmp_path):
    whole = gzip.compress(json_lines([{"text": "one"}]))
    (tmp_path / "a.jsonl.gz").write_bytes(whole + bytes(8) + b"patient-name")
    with pytest.raises(UserError, match=r"is damaged after line 1 \(not gzip, or a wrong checksum\)"):
        read_all(str(tmp_path / "a.jsonl.gz"))
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:-8] + bytes(4) + whole[-4:])
    with pytest.raises(UserError, match="a wrong checksum"):
        read_all(str(tmp_path / "a.jsonl.gz"))


def zstandard_frame(content: bytes, window_log: int) -> bytes:
    """A frame of one raw block, with a window of 2**window_log bytes."""
    block = (len(content) << 3 | 1).to_bytes(3, "little") + content
    return b"\x28\xb5\x2f\xfd\0" + bytes([(window_log - 10) << 3]) + block


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("suffix", ["jsonl", "xml"])
def test_a_zstandard_file_with_a_long_window_is_not_called_damaged(tmp_path, on_error, suffix):
    content = json_lines([{"text": "one"}])
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard_frame(content, 27))
    assert read_all(str(tmp_path / "a.jsonl.zst")) == ["one"]
    (tmp_path / f"b.{suffix}.zst").write_bytes(zstandard_frame(content, 28))
    with pytest.raises(UserError, match=r"window of more than 128 MiB .* zstd -dc --long=31 OLD") as caught:
        read_all(str(tmp_path / f"b.{suffix}.zst"), on_error=on_error)
    assert "damaged" not in str(caught.value)


def test_a_byte_order_mark_and_blank_lines_are_no_documents(tmp_path):
    assert read_all(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "x"}\n\n{"text": "y"}\n\n')) == [
        "x",
        "y",
    ]


def test_documents_of_white_space_are_counted_and_left_out(tmp_path):
    path = write(tmp_path / "a.jsonl", json_lines([{"text": ""}, {"text": " \n\t"}, {"text": "x"}]))
    counts: Counter[str] = Counter()
    assert read_all(path, counts=counts) == ["x"]
    assert counts == {"empty": 2}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.jsonl", "does not exist"),
        ("*.parquet", "No file matches"),
        ("folder", "has no file of a known kind"),
        ("a.doc", r"unknown kind: the suffix must be one of \.jsonl, \.jsonl\.gz"),
        ("*.doc", "unknown kind"),
        ("mixed", r"has files of several kinds \(csv, text\); say which with format"),
    ],
)
def test_a_path_without_readable_files_says_so(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "mixed").mkdir()
    for file in ("folder/a.md", "a.doc", "mixed/a.csv", "mixed/README.txt"):
        (tmp_path / file).write_text("text")
    with pytest.raises(UserError, match=message):
        read_all(str(tmp_path / name))


def test_an_unknown_protocol_says_so():
    with pytest.raises(UserError, match="cannot be reached"):
        read_all("nowhere://bucket/a.jsonl")


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", json_lines([{"text": "x"}]))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalFileSystem, "_open", refuse)  # a real refusal cannot be had as root
    for on_error in ("stop", "skip"):
        with pytest.raises(UserError, match=r"a\.jsonl may not be read: permission denied"):
            read_all(path, on_error=on_error)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_source_without_documents_is_an_error(tmp_path, name):
    for content in (b"", b"\n", json_lines([{"text": " "}])):
        with pytest.raises(UserError, match="holds no document"):
            read_all(write(tmp_path / name, content))
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no document \(1 x empty file\)"):
        read_all(str(tmp_path / name))


def test_an_empty_file_among_others_is_counted(tmp_path):
    write(tmp_path / "a.jsonl", b"")
    write(tmp_path / "b.jsonl", json_lines([{"text": "x"}]))
    assert skipped(str(tmp_path)) == (["x"], {"empty file": 1})


BAD_LINES = {
    "broken JSON": (b'{"text": "patient-name', "line 2 is not valid JSON: Unterminated string"),
    "not an object": (b'["patient-name"]', "line 2 is JSON, but not an object"),
    "no such field": (
        b'{"txet": "patient-name"}',
        "line 2 has no field 'text'; its fields: 'txet'; did you mean 'txet'",
    ),
    "text not a string": (b'{"text": {"patient-name": 1}}', "line 2: 'text' is dict, not a string"),
    "not UTF-8": (b'{"text": "patient-name \xff"}', r"line 2 is not valid UTF-8 \(byte 24 of the line\)"),
    "not Unicode": (rb'{"text": "patient-name \ud83d"}', "line 2: 'text' has half a surrogate pair"),
}


@pytest.mark.parametrize("reason", BAD_LINES)
def test_a_bad_line_stops_or_is_counted_and_is_never_quoted(tmp_path, reason):
    bad, message = BAD_LINES[reason]
    path = write(tmp_path / "a.jsonl.gz", b'{"text": "x"}\n' + bad + b'\n{"text": "y"}\n')
    with pytest.raises(UserError, match=message) as caught:
        read_all(path)
    assert "a.jsonl.gz" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert skipped(path) == (["x", "y"], {reason: 1})


@pytest.mark.parametrize("bad", [b"[" * 100_000, b'{"text": ' + b"1" * 5000 + b"}"])
def test_what_the_json_parser_cannot_hold_is_broken_json(tmp_path, bad):
    path = write(tmp_path / "a.jsonl", b'{"text": "x"}\n' + bad)
    with pytest.raises(UserError, match="line 2 is not valid JSON: a number too long or brackets too deep"):
        read_all(path)
    assert skipped(path) == (["x"], {"broken JSON": 1})


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_truncated_file_stops_or_keeps_what_could_be_read(tmp_path, name):
    texts = [os.urandom(60).hex() for _ in range(5000)]
    path = write(tmp_path / name, json_lines([{"text": text} for text in texts]))
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(UserError, match=r"is damaged after line \d+ \(Truncated compressed stream\)"):
        read_all(path)
    kept, counts = skipped(path)
    assert kept == texts[: len(kept)]
    assert len(kept) > 0.5 * len(texts)
    assert counts == {"rest of a damaged file": 1}


def test_a_file_that_is_not_compressed_at_all_says_so(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(json_lines([{"text": "x"}]))
    with pytest.raises(UserError, match="is damaged after line 0"):
        read_all(str(tmp_path / "a.jsonl.gz"))


def test_a_corrupt_parquet_file_stops_or_is_counted(tmp_path):
    truncated = Path(write_parquet(tmp_path / "a.parquet", text=TEXTS)).read_bytes()[:-20]
    write_parquet(tmp_path / "b.parquet", text=["x"])
    for content in (b"", b"PAR1 nonsense PAR1", truncated):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.parquet is not a sound parquet file"):
            read_all(str(tmp_path))
        assert skipped(str(tmp_path)) == (["x"], {"rest of a damaged file": 1})


def test_parquet_without_the_column_names_those_it_has(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", texts=["x"], id=[1])
    with pytest.raises(
        UserError, match="has no field 'text'; its fields: 'texts', 'id'; did you mean 'texts'"
    ):
        read_all(path)
    with pytest.raises(UserError, match="row 1: 'id' is int, not a string"):
        read_all(path, text_field="id")


def test_a_null_or_bad_bytes_in_parquet_stop_or_are_counted(tmp_path):
    bad = pa.array([b"x", b"\xff", None, b"y"], pa.binary()).view(pa.string())
    path = write_parquet(tmp_path / "a.parquet", text=bad)
    with pytest.raises(UserError, match="row 2: 'text' is not valid UTF-8"):
        read_all(path)
    assert skipped(path) == (["x", "y"], {"not UTF-8": 1, "text not a string": 1})


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_binary_column_of_parquet_is_text(tmp_path, kind):
    content = [b"one", "été".encode(), b"\xff", None]
    path = write_parquet(tmp_path / "a.parquet", text=pa.array(content, kind))
    assert skipped(path) == (["one", "été"], {"not UTF-8": 1, "text not a string": 1})


def test_a_corrupt_parquet_file_says_what_is_wrong_with_it(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense of some length, and no footer")
    with pytest.raises(
        UserError, match=r"not a sound parquet file after row 0 \(Parquet magic bytes not found"
    ):
        read_all(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_the_bytes_reported_are_the_bytes_of_the_files(tmp_path, name):
    texts = [os.urandom(100).hex() for _ in range(3000)]
    if name == "a.parquet":
        path = write_parquet(tmp_path / name, text=texts)
    else:
        path = write(tmp_path / name, json_lines([{"text": text} for text in texts]))
    seen: list[int] = []
    read_all(path, on_bytes=seen.append)
    assert sum(seen) == os.path.getsize(path)
    assert len(seen) > 5


def test_a_stamp_changes_with_the_file(tmp_path):
    path = write(tmp_path / "a.jsonl", b"{}")
    before = file_stamp(path)
    assert before == file_stamp(path)
    os.utime(path, (1, 1))
    assert file_stamp(path) != before
    assert json.loads(json.dumps(before)) == before


REAL = {"pubmed": 3_570, "instructions": 22_722, "notes": 7_968, "general": 12_395, "french": 1_158}


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_real_corpora_are_read_whole(shared_data, name):
    counts: Counter[str] = Counter()
    documents = read_documents(str(shared_data / "corpus" / f"{name}.jsonl.gz"), counts=counts)
    assert sum(1 for _ in documents) == REAL[name]
    assert not counts

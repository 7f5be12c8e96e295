"""Plain text, by files, lines or paragraphs."""

from __future__ import annotations

import pytest
from reading import read_all, read_rest, write

from clm_detour.utils.errors import UserError

TEXT = "\n\nFirst line.\r\nSecond line.\n\n \t\nThird, déjà vu.\n\n"


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".txt.zst"])
def test_a_document_is_a_file_a_line_or_a_paragraph(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", TEXT)
    assert read_all(path) == ["First line.\r\nSecond line.\n\n \t\nThird, déjà vu."]
    assert read_all(path, document="line") == ["First line.", "Second line.", "Third, déjà vu."]
    assert read_all(path, document="paragraph") == ["First line.\r\nSecond line.", "Third, déjà vu."]


def test_every_file_of_a_folder_is_a_document_and_blank_ones_are_counted(tmp_path):
    for name, content in (("a", "one"), ("b", "two\n"), ("c", " \n"), ("d", "")):
        write(tmp_path / f"{name}.txt", content)
    assert read_rest(tmp_path) == (["one", "two"], {"empty file": 2})


def test_any_file_is_text_if_the_recipe_says_so(tmp_path):
    path = write(tmp_path / "notes.md", "# Title\n")
    assert read_all(path, format="text") == ["# Title"]


@pytest.mark.parametrize("document", ["file", "line", "paragraph"])
def test_bad_bytes_are_found_where_they_are(tmp_path, document):
    path = write(tmp_path / "a.txt", b"one\ntwo patient-name \xe9t\xe9\n\nthree\n")
    with pytest.raises(
        UserError, match=r"a\.txt line 2 is not valid UTF-8 \(byte 18 of the line\)"
    ) as caught:
        read_all(path, document=document)
    assert "patient-name" not in str(caught.value)
    kept = {"file": [], "line": ["one", "three"], "paragraph": ["three"]}[document]
    write(tmp_path / "b.txt", "other")
    assert read_rest(tmp_path, document=document) == ([*kept, "other"], {"not UTF-8": 1})


def test_nul_characters_are_a_sign_of_another_encoding(tmp_path):
    path = write(tmp_path / "a.txt", "patient-name".encode("utf-16-le"))
    with pytest.raises(
        UserError, match=r"line 1: 'text' has a NUL character: is this a text file in UTF-8\?"
    ):
        read_all(path)

"""The page on other software says what its snippets give."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "interop.py"))
PAGE = (ROOT / "docs" / "interop.md").read_text(encoding="utf-8")
RESULTS = dict(re.findall(r"^\| \[(.+?)\]\(#.*?\) \| .*? \| (.+) \|$", PAGE, re.MULTILINE))
QUICK = {"text-embeddings-inference", "vLLM", "llama.cpp"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("interop")
    SCRIPT["make_model"](folder / "my-model")
    return folder


def test_the_table_has_a_row_for_every_section_with_a_snippet():
    assert list(RESULTS) == list(SCRIPT["ROWS"])
    assert set(SCRIPT["sections"]()) == set(RESULTS)


@pytest.mark.parametrize(
    "use", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RESULTS]
)
def test_a_row_says_what_its_snippets_give(use, folder):
    assert SCRIPT["run"](use, folder) == RESULTS[use]


def test_a_folder_without_a_field_or_with_another_tensor_is_seen(folder):
    problems = SCRIPT["problems"]
    assert "decoder.bias" in problems("llama.cpp", str(folder / "my-model"))
    config = folder / "my-model" / "config.json"
    text = config.read_text()
    try:
        config.write_text(text.replace('"norm_eps": 1e-05', '"norm_eps": "small"'))
        assert problems("text-embeddings-inference", str(folder / "my-model"), head=True) == ["norm_eps"]
    finally:
        config.write_text(text)

"""No text of a corpus in anything that is said or written about it: messages, records, cards, pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from reading import write

from clm_detour.__main__ import main
from clm_detour.data.card import CARD, PICTURE
from clm_detour.data.decontaminate import SharedRuns
from clm_detour.data.prepare import prepare_source
from clm_detour.data.sources import read_documents
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.utils.errors import UserError

NAMES = ("Aldebaran", "Betelgeuse", "Cassiopeia", "Deneb")
BAD = [
    '{"text": "Aldebaran',
    '{"text": ["Betelgeuse"]}',
    '["Cassiopeia"]',
    '{"txet": "Deneb"}',
    '{"text": "Aldebaran \\ud800"}',
    '{"text": "Betelgeuse \\u0000"}',
    '{"text": "Cassiopeia", "score": "Deneb"}',
]
TOKENS = ("tokens-*.bin",)


def records(count: int) -> list[str]:
    texts = (
        f"{NAMES[number % 4]} was seen {number} times on the ward. " * (number % 5) for number in range(count)
    )
    return [json.dumps({"text": text, "score": number % 3}) for number, text in enumerate(texts)]


def written(folder: Path) -> str:
    """Everything below a folder but the tokens themselves."""
    files = [file for file in folder.rglob("*") if file.is_file() and not any(map(file.match, TOKENS))]
    assert len(files) > 10
    return "\n".join(file.read_bytes().decode("latin-1") for file in files)


@pytest.fixture
def said(tiny_recipe, tmp_path, monkeypatch, capfd):
    """A function that prepares a file of lines and gives all that was said and written."""
    recipe = tiny_recipe(tmp_path / "run")

    def prepare(lines: list[str], *more: str) -> tuple[int, str]:
        (tmp_path / "notes.jsonl").write_text("\n".join(lines) + "\n")
        (tmp_path / "evaluation.txt").write_text(
            "Deneb was seen 7 times on the ward. Deneb was seen 7 times on the ward."
        )
        settings = [
            f"data.dir={tmp_path}/data",
            f"data.sources.notes.path={tmp_path}/notes.jsonl",
            "data.sources.notes.where=score >= 1",
            "data.sources.notes.repeat={score == 2: 1.5}",
            "data.sources.notes.deduplicate=true",
            f"data.sources.notes.decontaminate=[{tmp_path}/evaluation.txt]",
        ]
        monkeypatch.setattr(sys, "argv", ["clm-detour", "prepare", str(recipe), *settings, *more])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0), "".join(capfd.readouterr())

    return prepare


def test_no_text_in_what_is_said_and_written_of_records_good_and_bad(said, tmp_path):
    code, output = said([*records(300), *BAD], "data.on_error=skip")
    assert code == 0
    everything = output + written(tmp_path / "data" / "notes")
    assert "contaminated" in everything
    assert "not comparable" in everything
    assert "duplicate" in everything
    for name in NAMES:
        assert name not in everything


@pytest.mark.parametrize("bad", BAD)
def test_no_text_in_the_sentence_that_stops_a_run(said, bad):
    code, output = said([*records(20), bad])
    assert code == 2
    assert "notes.jsonl line 21" in output
    assert not any(name in output for name in NAMES)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz"])
def test_no_text_in_what_is_said_of_a_table_without_a_header(tmp_path, name):
    row = [b"7", *(name.encode() for name in NAMES)]
    write(tmp_path / name, (b"," if "csv" in name else b"\t").join(row) + b"\n")
    for field in ("text", "Alderaban"):  # the second is near to a cell
        with pytest.raises(UserError, match=r"line 1 has no field '.*' among its 5 columns") as error:
            list(read_documents(str(tmp_path / name), field))
        assert not any(name in str(error.value) for name in NAMES)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["instructions", "notes"])
def test_no_six_words_of_a_real_corpus_in_its_card(shared_data, tmp_path, name, capfd):
    corpus = str(shared_data / "corpus" / f"{name}.jsonl.gz")
    prepare_source(
        name, corpus, tmp_path, load_tokenizer(str(shared_data / "tokenizer" / "modernbert")), 8192, 42, 0.05
    )
    about = ["".join(capfd.readouterr()), *((tmp_path / file).read_text() for file in (CARD, PICTURE))]
    runs = SharedRuns(about, n=6)
    assert len(runs.runs) > 100
    assert not any(map(runs.in_text, read_documents(corpus)))

"""Paragraphs that are copied forward are cut out of later documents, and sources know of each other."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from near import WORDS, edited, new_text
from reading import write

from clm_detour.config.loading import load_config
from clm_detour.config.schema import NearDuplicates, Source
from clm_detour.data.copies import LISTING
from clm_detour.data.prepare import prepare_source
from clm_detour.data.shards import TokenShards
from clm_detour.data.shingles import FEWEST_WORDS, without_paragraphs
from clm_detour.data.tokenization import is_held_out
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.data.tokenizer_training import train_tokenizer
from clm_detour.run.pipeline import prepare_data


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([" ".join(WORDS)], 400, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder) -> Tokenizer:
    return load_tokenizer(str(tokenizer_folder))


def texts_in(folder: Path, tokenizer: Tokenizer, split: str) -> list[str]:
    shards, texts = TokenShards.open(folder / split), []
    for shard in range(len(shards)):
        documents = np.split(shards.tokens(shard), np.cumsum(shards.lengths(shard))[:-1])
        texts += [tokenizer.tokenizer.decode(ids[1:-1].tolist()) for ids in documents]
    return texts


def as_lines(texts: list[str]) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def test_copied_paragraphs_are_cut_and_short_ones_stay(tmp_path, tokenizer):
    rng = random.Random(1)
    long = [new_text(rng, 40) for _ in range(60)]
    short = new_text(rng, FEWEST_WORDS - 1)
    first = f"{short}\n\n{long[0]}\n\n{long[1]}"
    second = f"{short}\n\n{edited(rng, long[1], 0.05)}\n \n{long[2]}\n\n{long[0].upper()}\n"
    third = f"{long[2].upper()}\n\n{long[0]}"  # nothing is left
    inside = f"{long[3]}\n\n{long[4]}\n\n{edited(rng, long[3], 0.05)}"  # a copy within a document
    texts = [first, second, third, inside, first, *long[5:]]
    path = write(tmp_path / "a.jsonl", as_lines(texts))
    source = Source(path=path, deduplicate=NearDuplicates(near=0.5, by="paragraph"))
    report = prepare_source("a", source, tmp_path / "a", tokenizer, 64, 1, 0.3)
    expected = {
        first: first,
        second: f"{short}\n\n{long[2]}",
        inside: f"{long[3]}\n\n{long[4]}",
    } | {text: text for text in long[5:]}
    for split in ("train", "held_out"):
        wanted = [cut for text, cut in expected.items() if is_held_out(text, 0.3) == (split == "held_out")]
        assert texts_in(tmp_path / "a", tokenizer, split) == wanted
    assert report.dropped == {"duplicate": 1, "near duplicate": 1, "near duplicate paragraph": 5}
    lines = [json.loads(line) for line in (tmp_path / "a" / LISTING).read_text().splitlines()]
    assert [
        (line["document"], line["paragraph"], line["near"]["document"], line["near"]["paragraph"])
        for line in lines
    ] == [(2, 2, 1, 3), (2, 4, 1, 2), (3, 1, 2, 3), (3, 2, 1, 2), (4, 3, 4, 1)]


@pytest.mark.parametrize(
    ("text", "cut", "expected"),
    [
        ("a\n\nb\n\nc", {0}, "b\n\nc"),
        ("a\n\nb\n\nc", {1}, "a\n\nc"),
        ("a\n\nb\n\nc", {2}, "a\n\nb"),
        ("a\r\n\r\nb\n \n\nc\n", {1, 2}, "a"),
        ("\n\na\n\n", {1}, ""),
        ("a\nb", {0}, ""),
    ],
)
def test_a_paragraph_goes_with_the_blank_lines_behind_it(text, cut, expected):
    assert without_paragraphs(text, cut).strip() == expected.strip()
    assert without_paragraphs(text, set()) == text


@pytest.fixture
def recipe(tiny_recipe, tmp_path, tokenizer_folder):
    """A function that writes a recipe with these texts as sources, and prepares it."""
    base = tiny_recipe(tmp_path / "run")

    def prepare(sources: dict[str, list[str]], *words: str) -> Path:
        for name, texts in sources.items():
            path = tmp_path / f"{name}.jsonl"
            if not path.exists() or path.read_text() != as_lines(texts):
                write(path, as_lines(texts))
        settings = [
            f"data.dir={tmp_path}/data",
            "data.held_out=0.2",
            f"tokenizer.path={tokenizer_folder}",
            *(f"data.sources.{name}.path={tmp_path}/{name}.jsonl" for name in sources),
        ]
        prepare_data(load_config(base, [*settings, *words]))
        return tmp_path / "data"

    return prepare


def card(folder: Path, name: str) -> dict[str, int]:
    return json.loads((folder / name / "card.json").read_text())["dropped"]


def test_copies_across_sources_are_left_out_of_the_later_source(recipe, tokenizer):
    rng = random.Random(2)
    names = ("general", "abstracts", "instructions", "notes")
    texts = {name: [new_text(rng, 50) for _ in range(60)] for name in names}
    texts["abstracts"] += [texts["general"][3], edited(rng, texts["general"][4], 0.05)]
    texts["notes"] += [edited(rng, texts["abstracts"][5], 0.05), texts["notes"][0]]
    folder = recipe(texts, "data.deduplicate.near=0.5")
    dropped = {name: card(folder, name) for name in names}
    assert dropped == {
        "general": {},
        "abstracts": {"duplicate": 1, "near duplicate": 1},
        "instructions": {},
        "notes": {"duplicate": 1, "near duplicate": 1},
    }
    (line,) = [json.loads(line) for line in (folder / "notes" / LISTING).read_text().splitlines()]
    assert (line["source"], line["document"]) == ("notes", 61)
    assert (line["near"]["source"], line["near"]["document"]) == ("abstracts", 6)
    before = {path: path.read_bytes() for path in folder.rglob("*.bin")}
    recipe(texts, "data.deduplicate.near=0.5")
    assert before == {path: path.read_bytes() for path in folder.rglob("*.bin")}
    texts["general"][4] = new_text(rng, 50)  # its copy is now the first of its kind
    recipe(texts, "data.deduplicate.near=0.5")
    assert card(folder, "abstracts") == {"duplicate": 1}
    recipe(texts, "data.deduplicate=true")
    assert card(folder, "notes") == {"duplicate": 1}
    assert not (folder / "notes" / LISTING).exists()

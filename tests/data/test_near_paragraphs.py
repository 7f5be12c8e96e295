"""Paragraphs that are copied forward are cut out of later documents, and sources know those before them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from near import as_lines, edited, listed, new_text, texts_in, write_tokenizer
from reading import write

from clm_detour.config.loading import load_config
from clm_detour.config.schema import NearDuplicates, Source
from clm_detour.data.copies import LISTING
from clm_detour.data.prepare import prepare_source
from clm_detour.data.shingles import FEWEST_WORDS, without_paragraphs
from clm_detour.data.tokenization import is_held_out
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.run.check.started import changed_setting
from clm_detour.run.pipeline import prepare_data

NAMES = ("general", "abstracts", "instructions", "notes")


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory) -> str:
    return str(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_copied_paragraphs_are_cut_and_short_ones_stay(tmp_path, tokenizer_folder):
    rng = random.Random(1)
    long = [new_text(rng, 40) for _ in range(60)]
    short = new_text(rng, FEWEST_WORDS - 1)
    first = f"{short}\n\n{long[0]}\n\n{long[1]}"
    second = f"{short}\n\n{edited(rng, long[1], 0.05)}\n \n{long[2]}\n\n{long[0].upper()}\n"
    third = f"{long[2].upper()}\n\n{long[0]}"  # nothing is left
    inside = f"{long[3]}\n\n{long[4]}\n\n{edited(rng, long[3], 0.05)}"  # a copy within a document
    path = write(tmp_path / "a.jsonl", as_lines([first, second, third, inside, first, *long[5:]]))
    source = Source(path=path, deduplicate=NearDuplicates(near=0.5, by="paragraph"))
    tokenizer = load_tokenizer(tokenizer_folder)
    report = prepare_source("a", source, tmp_path / "a", tokenizer, 64, 1, 0.3)
    expected = {first: first, second: f"{short}\n\n{long[2]}", inside: f"{long[3]}\n\n{long[4]}"}
    expected |= {text: text for text in long[5:]}
    for split in ("train", "held_out"):
        wanted = [cut for text, cut in expected.items() if is_held_out(text, 0.3) == (split == "held_out")]
        assert texts_in(tmp_path / "a", tokenizer, split) == wanted
    assert report.dropped == {"duplicate": 1, "near duplicate": 1, "near duplicate paragraphs": 5}
    assert [
        (
            *(line[key] for key in ("document", "paragraph")),
            *(line["near"][key] for key in ("document", "paragraph")),
        )
        for line in listed(tmp_path / "a")
    ] == [(2, 2, 1, 3), (2, 4, 1, 2), (3, 1, 2, 3), (3, 2, 1, 2), (4, 3, 4, 1)]


@pytest.mark.parametrize(
    ("text", "cut", "expected"),
    [
        ("a\n\nb\n\nc", {0}, "b\n\nc"),
        ("a\n\nb\n\nc\n", {1}, "a\n\nc\n"),
        ("a\n\nb\n\nc", {2}, "a\n\nb"),
        ("a\r\n\r\nb\n \n\nc\n", {1, 2}, "a"),
        ("\n\na\n\nb", {1}, "\n\nb"),
        ("a\nb", {0}, ""),
    ],
)
def test_a_paragraph_goes_with_the_blank_lines_behind_it(text, cut, expected):
    assert without_paragraphs(text, cut) == expected
    assert without_paragraphs(text, set()) == text


@pytest.fixture
def prepare(tiny_recipe, tmp_path, tokenizer_folder):
    """A function that prepares a recipe with these texts as sources, and gives the folder of the data."""
    recipe = tiny_recipe(tmp_path / "run")
    settings = [f"data.dir={tmp_path}/data", "data.held_out=0.2", f"tokenizer.path={tokenizer_folder}"]
    settings += [f"data.sources.{name}.path={tmp_path}/{name}.jsonl" for name in NAMES]

    def prepared(texts: dict[str, list[str]], *words: str) -> Path:
        for name, some in texts.items():
            path = tmp_path / f"{name}.jsonl"
            if not path.exists() or path.read_text() != as_lines(some):
                write(path, as_lines(some))
        prepare_data(load_config(recipe, [*settings, *words]))
        return tmp_path / "data"

    return prepared


def left_out(folder: Path) -> dict[str, dict[str, int]]:
    cards = {name: json.loads((folder / name / "card.json").read_text()) for name in NAMES}
    return {name: card["dropped"] for name, card in cards.items() if card["dropped"]}


def test_copies_across_sources_are_left_out_of_the_later_source(prepare, tmp_path):
    rng = random.Random(2)
    texts = {name: [new_text(rng, 50) for _ in range(60)] for name in NAMES}
    texts["abstracts"] += [texts["general"][3], edited(rng, texts["general"][4], 0.05)]
    texts["notes"] += [edited(rng, texts["abstracts"][5], 0.05), texts["notes"][0]]
    folder = prepare(texts, "data.deduplicate.near=0.5")
    one_each = {"duplicate": 1, "near duplicate": 1}
    assert left_out(folder) == {"abstracts": one_each, "notes": one_each}
    (line,) = listed(folder / "notes")
    assert [(place["source"], place["document"]) for place in (line, line["near"])] == [
        ("notes", 61),
        ("abstracts", 6),
    ]
    texts["general"][4] = new_text(rng, 50)  # its copy is now the first of its kind
    prepare(texts, "data.deduplicate.near=0.5")
    assert left_out(folder) == {"abstracts": {"duplicate": 1}, "notes": one_each}
    prepare(texts, "data.deduplicate=true")
    assert left_out(folder) == {"abstracts": {"duplicate": 1}, "notes": {"duplicate": 1}}
    assert not (folder / "notes" / LISTING).exists()
    prepare(texts)
    assert left_out(folder) == {}


def test_a_changed_threshold_across_sources_has_its_key_in_the_recipe():
    before, now = ({"across": {"deduplicate": {"near": near}, "earlier": str(near)}} for near in (0.5, 0.6))
    assert changed_setting("notes", before, now) == "data.deduplicate.near was 0.5, is now 0.6"
    now["across"]["deduplicate"]["near"] = 0.5
    assert changed_setting("notes", before, now) is None

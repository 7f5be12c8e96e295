"""What a source's settings choose is what its shards hold, and another choice makes other shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading import write

from clm_detour.config.schema import NearDuplicates, Source
from clm_detour.data.prepare import SourceReport, prepare_source
from clm_detour.data.shards import TokenShards
from clm_detour.data.tokenization import is_held_out
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.data.tokenizer_training import train_tokenizer

TEXTS = [f"Note {number % 250} on patient {number % 250}: stable." for number in range(300)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 300, folder)
    return load_tokenizer(str(folder))


@pytest.fixture
def corpus(tmp_path) -> str:
    records = [{"text": text, "score": number % 5, "kind": "a"} for number, text in enumerate(TEXTS)]
    return write(tmp_path / "notes.jsonl.gz", "".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def prepared(tmp_path, corpus, tokenizer):
    def run(**settings: Any) -> SourceReport:
        source = Source(path=corpus, **settings)
        return prepare_source("notes", source, tmp_path / "data" / "notes", tokenizer, 64, 1, 0.1)

    return run


def texts_in(folder: Path, tokenizer: Tokenizer) -> list[str]:
    shards = TokenShards.open(folder)
    if not shards.index["shards"]:
        return []
    tokens = np.fromfile(folder / "tokens-00000.bin", dtype=shards.index["dtype"])
    ends = np.cumsum(np.load(folder / "lengths-00000.npy"))[:-1]
    return [tokenizer.tokenizer.decode(ids[1:-1].tolist()) for ids in np.split(tokens, ends)]


def test_the_shards_hold_what_was_chosen_and_the_report_the_rest(prepared, tokenizer, tmp_path):
    report = prepared(where="score >= 2", deduplicate=True, max_words=6)
    expected = dict.fromkeys(text for number, text in enumerate(TEXTS) if number % 5 >= 2)
    for split in ("train", "held_out"):
        wanted = [text for text in expected if is_held_out(text, 0.1) == (split == "held_out")]
        assert texts_in(tmp_path / "data" / "notes" / split, tokenizer) == wanted
    chosen = sum(number % 5 >= 2 for number in range(300))
    assert report.dropped == {"where": 300 - chosen, "duplicate": chosen - len(expected)}
    written = json.loads((tmp_path / "data" / "notes" / "card.json").read_text())
    assert written["dropped"] == report.dropped


def test_copies_are_for_training_only(prepared, tokenizer, tmp_path):
    prepared(repeat={"score == 4": 3}, deduplicate=True)
    held_out = texts_in(tmp_path / "data" / "notes" / "held_out", tokenizer)
    train = texts_in(tmp_path / "data" / "notes" / "train", tokenizer)
    assert len(held_out) == len(set(held_out)) > 5
    assert {text: train.count(text) for text in train} == {
        text: 3 if number % 5 == 4 else 1
        for number, text in enumerate(TEXTS[:250])
        if not is_held_out(text, 0.1)
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"where": "score >= 2"},
        {"template": "{kind}: {text}"},
        {"min_words": 3},
        {"max_characters": 1000},
        {"deduplicate": True},
        {"deduplicate": NearDuplicates(near=0.5)},
        {"repeat": {"score == 1": 2}},
        {"deidentified": ""},
        {"decontaminate": ["EVALUATION"]},
    ],
)
def test_a_change_of_settings_makes_the_shards_anew_and_the_same_settings_do_not(
    prepared, tmp_path, settings
):
    if "decontaminate" in settings:
        settings = {"decontaminate": [write(tmp_path / "evaluation.txt", "some other text")]}
    prepared()
    assert not prepared(**settings).skipped
    assert prepared(**settings).skipped
    assert not prepared().skipped


def test_the_order_of_conditions_matters_and_so_does_a_change_of_the_evaluation(prepared, tmp_path):
    prepared(repeat={"score == 1": 2, "score >= 1": 3})
    assert not prepared(repeat={"score >= 1": 3, "score == 1": 2}).skipped
    path = write(tmp_path / "evaluation.txt", "some other text")
    prepared(decontaminate=[path])
    write(tmp_path / "evaluation.txt", "one more")
    assert not prepared(decontaminate=[path]).skipped

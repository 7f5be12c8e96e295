"""Canaries are in the training documents as often as the recipe says, and nowhere else."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from near import as_lines, new_text, texts_in, write_tokenizer
from reading import write

from clm_detour.config.loading import load_config
from clm_detour.config.schema import Canaries, NearDuplicates, Source
from clm_detour.data.canaries import Canary, make_canaries
from clm_detour.data.prepare import SourceReport, prepare_source
from clm_detour.data.sources.selection import is_held_out
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.utils.errors import UserError

CANARIES = Canaries("a", each=3, copies=[1, 4, 16])
HELD_OUT = 0.3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return load_tokenizer(str(write_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


@pytest.fixture
def run(tmp_path, tokenizer) -> Callable[..., SourceReport]:
    """A function that prepares 200 texts with canaries, and reports."""
    rng = random.Random(1)
    corpus = write(tmp_path / "texts.jsonl", as_lines([new_text(rng, 30) for _ in range(200)]))

    def prepared(name: str = "a", deduplicate: Any = False, canaries: Canaries | None = CANARIES):
        source = Source(path=str(corpus), deduplicate=deduplicate)
        folder = tmp_path / name
        return prepare_source(name, source, folder, tokenizer, 64, 1, HELD_OUT, canaries=canaries)

    return prepared


def found_in(folder: Path, tokenizer: Tokenizer, split: str) -> Counter[str]:
    """Return how often each canary is a document of a split."""
    documents = Counter(texts_in(folder, tokenizer, split))
    return Counter({one.text: documents[one.text] for one in all_canaries() if documents[one.text]})


def all_canaries() -> list[Canary]:
    return make_canaries(CANARIES, HELD_OUT)


def test_every_canary_is_in_training_as_often_as_asked_and_never_held_out(run, tmp_path, tokenizer):
    run()
    expected = {canary.text: canary.copies for canary in all_canaries() if canary.copies}
    assert found_in(tmp_path / "a", tokenizer, "train") == expected
    assert not found_in(tmp_path / "a", tokenizer, "held_out")


def test_canaries_change_no_other_document(run, tmp_path, tokenizer):
    with_canaries, without = run("with"), run("without", canaries=None)
    added = 3 * (1 + 4 + 16)
    assert with_canaries.splits["train"].documents == without.splits["train"].documents + added
    assert with_canaries.splits["held_out"] == without.splits["held_out"]


@pytest.mark.parametrize("rule", [True, NearDuplicates(near=0.5)])
def test_deduplication_leaves_one_copy_of_each(rule, run, tmp_path, tokenizer):
    run(deduplicate=rule)
    assert set(found_in(tmp_path / "a", tokenizer, "train").values()) == {1}


def test_other_canaries_are_prepared_again_and_equal_ones_are_not(run):
    assert not run().skipped
    assert run().skipped
    assert not run(canaries=Canaries("a", each=3, copies=[1, 4, 16], seed=8)).skipped
    assert not run(canaries=None).skipped


def test_the_seed_decides_the_secrets():
    first, again = make_canaries(CANARIES, 0.1), make_canaries(CANARIES, 0.1)
    other = make_canaries(Canaries("a", each=3, copies=[1, 4, 16], seed=8), 0.1)
    assert first == again
    assert {canary.secret for canary in first}.isdisjoint(canary.secret for canary in other)


def test_each_canary_has_a_name_of_its_own_and_stays_out_of_the_held_out_split():
    canaries = make_canaries(Canaries("a", each=125), 0.9)
    assert len({canary.before for canary in canaries}) == len(canaries) == 1000
    assert not any(is_held_out(canary.text, 0.9) for canary in canaries)


def test_the_data_card_names_the_canaries_without_their_secrets(run, tmp_path):
    run()
    card = (tmp_path / "a" / "card.json").read_text()
    assert json.loads(card)["made_from"]["canaries"]["copies"] == [1, 4, 16]
    written = card + (tmp_path / "a" / "card.svg").read_text()
    assert not any(canary.secret in written for canary in all_canaries())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.canaries={source: nothing}", "data.canaries.source"),
        ("data.canaries={source: notes, each: 500}", "more than 1000 sentences"),
        ("data.canaries={source: notes, copies: [2, 2]}", "listed twice"),
        ("data.prepared={notes: elsewhere}", "prepared already"),
    ],
)
def test_canaries_that_cannot_be_inserted_are_an_error(override, message):
    with pytest.raises(UserError, match=message):
        load_config("quickstart", ["data.canaries={source: notes}", override])

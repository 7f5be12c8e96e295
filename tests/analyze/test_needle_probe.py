"""The trained needle probe: pairs without a shortcut, known accuracy on made-up states, the command."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest
import torch

from clm_detour.analyze.needle_pairs import TEMPLATES, languages, make_pairs, read_templates, split_sizes
from clm_detour.analyze.needle_probe import LENGTHS, PAIRS, encode, share, train_probe
from clm_detour.measure.encoder import load_encoder
from clm_detour.records.needles import NeedleProbeRecord
from clm_detour.records.store import parse
from clm_detour.utils.errors import UserError

from .test_compare import assert_refused


@pytest.fixture(scope="module")
def pairs():
    return make_pairs(read_templates("fr"), LENGTHS, PAIRS, seed=0)


def test_pairs_are_as_many_as_in_the_paper_and_balanced(pairs):
    assert Counter(pair.split for pair in pairs) == {"train": 1050, "validation": 225, "test": 225}
    assert sum(pair.holds for pair in pairs if pair.split == "train") == 525
    cells = Counter((pair.length, pair.position, pair.split) for pair in pairs)
    assert len(cells) == 5 * 3 * 3
    assert all(number == split_sizes(100)[split] for (_, _, split), number in cells.items())


def test_no_two_pairs_share_a_sentence_so_no_needle_is_in_two_splits(pairs):
    sentences = [sentence for pair in pairs for sentence in {pair.needle, pair.statement}]
    assert len(sentences) == len(set(sentences))
    assert all((pair.needle == pair.statement) == pair.holds for pair in pairs)


def test_a_false_statement_differs_from_the_needle_in_one_slot(pairs):
    for pair in pairs:
        if not pair.holds:
            before, after = pair.needle.split(), pair.statement.split()
            assert len(before) == len(after)
            assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


def test_there_are_eight_templates_of_two_to_four_slots_in_each_language():
    assert languages() == ["en", "fr"]
    for language in languages():
        templates = read_templates(language)
        assert len(templates.sentences) == 8
        assert {len(templates.slots(sentence)) for sentence in templates.sentences} == {2, 3, 4}
        used = {slot for sentence in templates.sentences for slot in templates.slots(sentence)}
        assert used == set(templates.values), TEMPLATES


def test_states_that_hold_the_answer_are_read_and_random_ones_are_at_chance(pairs):
    torch.manual_seed(1)
    noise = torch.randn(len(pairs), 32)
    holds = torch.tensor([2.0 * pair.holds - 1 for pair in pairs])
    planted = train_probe(noise + 4 * holds[:, None] * torch.randn(32).sign(), pairs, seed=0)
    assert planted.total.accuracy > 0.99
    assert all(each.pairs == 45 for each in planted.by_length)
    assert sum(each.right for each in planted.by_length) == planted.total.right
    chance = train_probe(noise, pairs, seed=0)
    low, high = chance.total.interval
    assert low < 0.5 < high
    assert chance == train_probe(noise, pairs, seed=0)
    assert chance != train_probe(noise, pairs, seed=1)


def test_the_interval_is_that_of_wilson():
    found = share([True] * 112 + [False] * 113)
    z, p, n = 1.959963984540054, 112 / 225, 225
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert found.interval == pytest.approx((middle - half, middle + half))
    assert half == pytest.approx(0.065, abs=5e-4)


def test_texts_have_their_length_with_the_needle_at_its_place_and_the_statement_last(bert, texts):
    made = make_pairs(read_templates("en"), [192], 60, seed=3)
    tokenizer = load_encoder(bert)[1]
    for pair, ids in zip(made, encode(tokenizer, texts, made, seed=3), strict=True):
        needle, statement = (
            tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
            for text in (pair.needle, pair.statement)
        )
        assert len(ids) == 192
        assert ids[-1 - len(statement) : -1].tolist() == statement
        text = ids[1 : -2 - len(statement)].tolist()
        at = round(pair.position * (len(text) - len(needle)))
        assert text[at : at + len(needle)] == needle


def test_the_command_writes_the_same_record_for_every_kind_of_encoder_again(
    run_cli, models, bert, texts_file, tmp_path
):
    words = ["--texts", texts_file, "--probe", "--language", "en", "--lengths", "160,192", "--pairs", 120]
    for folder in ("one", "two"):
        code, said = run_cli("needles", models["far"], bert, "--output", tmp_path / folder, *words)
        assert code == 0
        assert "18 test pairs" in said
    one, two = ((tmp_path / folder / "needle_probe.json").read_text() for folder in ("one", "two"))
    assert one == two
    record = parse(NeedleProbeRecord, json.loads(one))
    assert list(record.models) == [models["far"], bert]
    assert record.pairs == {"train": 84, "validation": 18, "test": 18}


def test_mistakes_are_told_before_a_model_is_read(run_cli, bert, texts_file, tmp_path):
    start = ["needles", bert, "--texts", texts_file, "--output", tmp_path]
    probe = [*start, "--probe", "--lengths"]
    assert_refused(run_cli(*start, "--pairs", 100), "no effect without --probe")
    assert_refused(run_cli(*probe, "64", "--trials", 3), "no effect with --probe")
    assert_refused(run_cli(*probe, "64", "--language", "de"), "en, fr only")
    assert_refused(run_cli(*probe, "64", "--pairs", 10), "at least 60")
    assert_refused(run_cli(*probe, "64,1024"), "reads 512 tokens at most")
    assert_refused(run_cli(*probe, "64", "--pairs", 60), "give longer ones")


def test_too_many_pairs_are_one_sentence():
    templates = read_templates("fr")
    few = {slot: values[:2] for slot, values in templates.values.items()}
    with pytest.raises(UserError, match="fewer --pairs"):
        make_pairs(dataclasses.replace(templates, values=few), [64], 600, seed=0)

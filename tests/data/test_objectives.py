"""Masking and next-token labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import with_words

from clm_detour.data.objectives import IGNORED, Objective, Vocabulary

VOCABULARY = with_words(Vocabulary(size=1000, pad=3, mask=4, special=(0, 1, 2, 3, 4)))
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=10)


def row(lengths: list[int], seed: int = 0) -> np.ndarray:
    """Documents of [CLS] (1) ... [SEP] (2)."""
    tokens = np.random.default_rng(seed).integers(5, 1000, sum(lengths))
    ends = np.cumsum(lengths)
    tokens[ends - np.array(lengths)], tokens[ends - 1] = 1, 2
    return tokens


@given(lengths)
def test_each_position_predicts_the_next_token_of_its_own_document(lengths):
    tokens = row(lengths)
    inputs, labels = Objective("clm").apply(tokens, np.array(lengths), VOCABULARY, (1, 2))
    assert (inputs == tokens).all()
    start = 0
    for length in lengths:
        assert (labels[start : start + length - 1] == tokens[start + 1 : start + length]).all()
        assert labels[start + length - 1] == IGNORED
        start += length


@settings(max_examples=50)
@given(lengths, st.integers(0, 2**32), st.floats(0.01, 0.99))
def test_masking_never_touches_special_tokens_and_changes_nothing_it_does_not_predict(
    lengths, position, rate
):
    tokens = row(lengths)
    inputs, labels = Objective("mlm", rate).apply(tokens, np.array(lengths), VOCABULARY, (17, position))
    special = np.isin(tokens, VOCABULARY.special)
    assert (labels[special] == IGNORED).all()
    assert (inputs[labels == IGNORED] == tokens[labels == IGNORED]).all()
    assert (labels[labels != IGNORED] == tokens[labels != IGNORED]).all()
    assert not np.isin(inputs[~special], [0, 1, 2, 3]).any()


@pytest.fixture(scope="module")
def many():
    tokens = np.random.default_rng(0).integers(5, 1000, 400_000)
    inputs, labels = Objective("mlm", 0.3).apply(tokens, np.array([400_000]), VOCABULARY, (17, 5))
    return tokens, inputs, labels


def test_of_the_predicted_80_percent_are_masked_10_replaced_10_kept(many):
    tokens, inputs, labels = many
    chosen = labels != IGNORED
    assert abs(chosen.mean() - 0.3) < 0.005
    assert abs((inputs[chosen] == VOCABULARY.mask).mean() - 0.8) < 0.005
    assert abs((inputs[chosen] == tokens[chosen]).mean() - 0.1) < 0.005


def test_replacements_come_evenly_from_the_whole_vocabulary(many):
    tokens, inputs, labels = many
    drawn = inputs[(labels != IGNORED) & (inputs != VOCABULARY.mask) & (inputs != tokens)]
    counts = np.bincount(drawn, minlength=1000)
    assert set(np.flatnonzero(counts)) == set(range(5, 1000))
    assert counts[5:].max() < 3 * counts[5:].mean()


@pytest.mark.parametrize("unit", ["token", "word"])
def test_the_mask_is_a_function_of_seed_and_position(unit):
    tokens, one = row([200]), np.array([200])
    objective = Objective("mlm", 0.3, unit)
    first, again = (objective.apply(tokens, one, VOCABULARY, (1, 7)) for _ in range(2))
    assert (first[0] == again[0]).all()
    for key in ((1, 8), (2, 7)):
        assert (objective.apply(tokens, one, VOCABULARY, key)[1] != first[1]).any()


@settings(max_examples=50)
@given(lengths, st.integers(0, 2**32))
def test_all_tokens_of_a_word_are_predicted_or_none_and_documents_share_no_word(lengths, position):
    tokens = row(lengths, position % 7)
    inputs, labels = Objective("mlm", 0.5, "word").apply(
        tokens, np.array(lengths), VOCABULARY, (17, position)
    )
    chosen = labels != IGNORED
    assert not chosen[tokens < 5].any()
    assert (inputs[~chosen] == tokens[~chosen]).all()
    assert (labels[chosen] == tokens[chosen]).all()
    ends = set(np.cumsum(lengths))
    for place in range(1, len(tokens)):
        inside = tokens[place] % 2 and tokens[place] > 4 and tokens[place - 1] > 4 and place not in ends
        assert not inside or chosen[place] == chosen[place - 1]


def test_a_word_that_is_cut_by_the_end_of_a_document_is_two_words():
    tokens, lengths = np.full(4000, 7), np.full(2000, 2)  # pieces of documents, without [CLS] and [SEP]
    _, labels = Objective("mlm", 0.5, "word").apply(tokens, lengths, VOCABULARY, (1, 1))
    chosen = (labels != IGNORED).reshape(2000, 2)
    assert (chosen[:, 0] == chosen[:, 1]).all()
    assert 800 < chosen[:, 0].sum() < 1200


def test_words_are_chosen_at_the_rate_whatever_their_length_and_each_token_meets_its_own_fate():
    tokens = np.random.default_rng(0).integers(5, 1000, 400_000)
    inputs, labels = Objective("mlm", 0.15, "word").apply(tokens, np.array([400_000]), VOCABULARY, (17, 5))
    chosen = labels != IGNORED
    starts = VOCABULARY.words.starts(tokens)
    assert abs(chosen[starts].mean() - 0.15) < 0.005
    assert abs(chosen.mean() - 0.15) < 0.005
    assert abs((inputs[chosen] == VOCABULARY.mask).mean() - 0.8) < 0.01
    inner = ~starts & chosen
    one, other = (inputs == VOCABULARY.mask)[inner], (inputs == VOCABULARY.mask)[np.flatnonzero(inner) - 1]
    assert abs((one & other).mean() - 0.64) < 0.01

"""A run of words that a document shares with an evaluation is found, and nothing else is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_detour.data import decontaminate
from clm_detour.data.decontaminate import SharedRuns

SENTENCE = "Aspirin inhibits cyclo-oxygenase, and so the synthesis of prostaglandins, in 12 of 13 patients."


def naive(evaluation: list[str], text: str, n: int) -> bool:
    def runs(text: str) -> set[tuple[str, ...]]:
        found = re.findall(r"[^\W_]+", text.casefold())
        return {tuple(found[start : start + n]) for start in range(len(found) - n + 1)}

    return any(runs(text) & runs(other) for other in evaluation)


SOME_TEXT = st.lists(st.sampled_from(["a", "b", "B", "c.", "d-e", "É"]), max_size=30).map(" ".join)


@settings(deadline=None)  # the first call looks at every character there is
@given(st.lists(SOME_TEXT, max_size=3), SOME_TEXT, st.integers(1, 5))
def test_it_finds_what_comparing_all_runs_finds(evaluation, text, n):
    assert SharedRuns(evaluation, n).in_text(text) == naive(evaluation, text, n)


def test_case_punctuation_and_spelling_of_characters_do_not_matter():
    shared = SharedRuns([SENTENCE], 13)
    assert SharedRuns(["ﬁbrosis grade ²"], 3).in_text("Fibrosis grade 2")
    assert shared.in_text("BEFORE\n" + SENTENCE.upper().replace(",", " --") + " after")
    assert SharedRuns(["déjà vu"], 2).in_text("de\u0301ja\u0300 VU")
    assert not shared.in_text(SENTENCE.replace("synthesis", "making"))
    assert not SharedRuns([SENTENCE], 20).in_text(SENTENCE)
    assert not SharedRuns([], 1).in_text(SENTENCE)


@pytest.mark.parametrize("block", [1, 7, 40])
def test_a_run_is_found_wherever_a_long_text_is_cut(monkeypatch, block):
    monkeypatch.setattr(decontaminate, "BLOCK", block)
    shared = SharedRuns([SENTENCE], 13)
    for before in range(20):
        assert shared.in_text("word " * before + SENTENCE + " word" * 5)
    assert not shared.in_text("word " * 50)

"""Losses of models with different tokenizers are compared by character."""

from __future__ import annotations

import math

import pytest

from clm_detour.records.run import HeldOutRecord, Score, Scores
from clm_detour.records.store import read, write


def scores(loss: float, predicted: int, source: str = "notes") -> Scores:
    """Return scores on one source."""
    return Scores(loss=loss, predicted=predicted, by_source={source: Score(loss=loss, predicted=predicted)})


def test_a_loss_per_character_is_the_sum_of_losses_over_the_characters(tmp_path):
    models = {"base": scores(2.0, 30), "twin": scores(3.0, 18)}
    of_web = {"base": scores(1.0, 8, "web")}
    general = HeldOutRecord(0.15, of_web, {}, characters={"base": {"web": 40}})
    counts = {"base": {"notes": 120}, "twin": {"notes": 108}}
    record = HeldOutRecord(0.15, models, {"twin": models["twin"]}, counts, general=general)
    write(record, tmp_path / "held_out.json")
    found = read(HeldOutRecord, tmp_path / "held_out.json").in_characters()
    assert found.unit == "nats per character"
    assert found.models["base"].loss == found.models["base"].of("notes").loss == pytest.approx(0.5)
    assert found.models["twin"].loss == found.phases["twin"].loss == pytest.approx(0.5)
    assert found.general.models["base"].loss == pytest.approx(0.2)
    assert found.models["base"].predicted == 30
    assert found.in_characters() is found


def test_without_characters_losses_stay_per_token_and_no_new_key_is_written(tmp_path):
    record = HeldOutRecord(0.15, {"twin": scores(3.0, 18)}, {})
    assert record.in_characters() is record
    assert record.unit == "nats"
    write(record, tmp_path / "held_out.json")
    assert "character" not in (tmp_path / "held_out.json").read_text()


def test_a_loss_over_no_character_is_not_a_number():
    record = HeldOutRecord(0.15, {"twin": scores(3.0, 18)}, {}, {"twin": {"notes": 0}})
    assert math.isnan(record.in_characters().models["twin"].loss)

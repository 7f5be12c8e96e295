"""Records are written and read by one definition, also those of other versions."""

from __future__ import annotations

import json
import math

import pytest

from clm_detour.records.analysis import NetworkComparison, WeightChange
from clm_detour.records.evaluation import MeanScore
from clm_detour.records.phase import LoggedStep
from clm_detour.records.run import HeldOutRecord, PlannedPhase, PlanRecord, Score, Scores, StepRecord
from clm_detour.records.store import as_json, as_line, parse, read, read_lines, write
from clm_detour.utils.errors import UserError

PLAN = PlanRecord({"clm": PlannedPhase(1e12), "mlm": PlannedPhase(None)})


def test_a_record_is_the_same_after_it_was_written_and_read(tmp_path):
    write(PLAN, tmp_path / "plan.json")
    assert read(PlanRecord, tmp_path / "plan.json") == PLAN


def test_a_record_without_a_version_is_read_and_one_of_a_later_version_is_not(tmp_path):
    content = as_json(PLAN)
    assert content.pop("format") == 1
    assert parse(PlanRecord, content) == PLAN  # as 0.1.0 wrote it
    (tmp_path / "plan.json").write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(UserError, match="does not have the form that this version reads"):
        read(PlanRecord, tmp_path / "plan.json")


@pytest.mark.parametrize("content", [[], {}, None, {"phases": {"clm": {"operations": "many"}}}])
def test_content_of_another_form_is_refused(content):
    with pytest.raises(ValueError, match="PlanRecord"):
        parse(PlanRecord, content)


def test_keys_that_this_version_does_not_know_are_ignored():
    assert parse(PlanRecord, {**as_json(PLAN), "later": 1}) == PLAN


def test_a_number_that_is_not_finite_is_null_in_the_file():
    scores = Scores(
        loss=math.inf, accuracy=0.5, predicted=9, by_source={"a": Score(loss=math.nan, predicted=0)}
    )
    content = as_json(HeldOutRecord(0.15, {"twin": scores}, {}))
    assert content["models"]["twin"]["loss"] is content["models"]["twin"]["by_source"]["a"]["loss"] is None
    found = parse(HeldOutRecord, content).models["twin"]
    assert math.isnan(found.loss)
    assert found.total is found
    assert found.of("a") is None


def test_keys_that_only_some_records_have_are_left_out_of_the_others():
    step = LoggedStep(step=1, tokens=9, loss=2.0, learning_rate=0.1, tokens_per_second=3.0)
    assert "mfu" not in as_json(step)
    assert as_json(MeanScore(mean=70.0, std=None, interval=None)) == {
        "mean": 70.0,
        "std": None,
        "interval": None,
    }
    done = StepRecord(step="tasks", title="Fine-tune", left_out="No data.")
    assert as_json([done], list[StepRecord]) == [
        {"step": "tasks", "title": "Fine-tune", "left_out": "No data."}
    ]
    with pytest.raises(ValueError, match="seconds"):
        StepRecord(step="tasks", title="Fine-tune")


def test_names_that_python_reserves_are_the_keys_of_the_file():
    change = WeightChange(before="one", after="two", layers=[], change={}, whole={})
    content = as_json(change)
    assert (content["from"], content["to"]) == ("one", "two")
    assert parse(WeightChange, content) == change


def test_broken_lines_are_skipped(tmp_path):
    step = LoggedStep(step=1, tokens=9, loss=2.0, learning_rate=0.1, tokens_per_second=3.0)
    path = tmp_path / "metrics.jsonl"
    path.write_text(as_line(step) + '{"step": 2}\n' + as_line(step)[:20])
    (found,) = read_lines(LoggedStep, path)
    assert (found.step, found.loss) == (1, 2.0)
    assert list(read_lines(LoggedStep, tmp_path / "absent.jsonl")) == []


def test_a_comparison_without_its_models_is_refused():
    texts = {"distinct": 9, "samples": 1, "per_sample": 9, "overlap": False}
    part = {"models": ["a", "b"], "pairs": [], "variants": {}}
    content = {"models": {}, "texts": texts, "ratio": None, "retention": None, "notes": []}
    for comparisons in ({}, {"detour_twin": part}):
        with pytest.raises(ValueError, match="missing"):
            parse(NetworkComparison, {**content, "comparisons": comparisons})

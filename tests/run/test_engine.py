"""One rule decides whether a step has to run: a missing output, a newer input, or different settings."""

from __future__ import annotations

import dataclasses
import os

import pytest

from clm_detour.run.engine import Step, StepRunner
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json, write_json


@pytest.fixture
def step(tmp_path):
    """A step that writes `scores.json` from `model.json`."""
    write_json(tmp_path / "model.json", 1)

    def work() -> None:
        write_json(tmp_path / "scores.json", 2)

    outputs, inputs = [tmp_path / "scores.json"], [tmp_path / "model.json"]
    return Step("score", "Score", work, outputs, inputs, settings={"rows": 4, "sources": ["a"]})


@pytest.fixture
def runner(tmp_path):
    return StepRunner(tmp_path / "steps.json")


def test_a_step_that_has_run_is_done_and_keeps_its_record(step, runner):
    runner.run(step)
    records = read_json(runner.path)
    assert [(record["step"], record["title"]) for record in records] == [("score", "Score")]
    assert read_json(step.path_of_settings) == {"rows": 4, "sources": ["a"]}
    assert not step.is_stale()
    runner.run(step)
    assert runner.ran == 1
    assert read_json(runner.path) == records


def test_a_missing_output_a_newer_input_and_different_settings_make_a_step_stale(step, runner):
    runner.run(step)
    assert dataclasses.replace(step, settings={"rows": 5, "sources": ["a"]}).is_stale()
    written = step.outputs[0].stat().st_mtime
    os.utime(step.inputs[0], (written + 1, written + 1))
    assert step.is_stale()
    os.utime(step.inputs[0], (written, written))
    assert not step.is_stale()
    step.path_of_settings.unlink()
    assert step.is_stale()
    runner.run(step)
    step.outputs[0].unlink()
    assert step.is_stale()


def test_a_missing_input_is_an_error(step, runner):
    runner.run(step)
    step.inputs[0].unlink()
    with pytest.raises(UserError, match=r"model\.json is missing; run the step that makes it first"):
        step.is_stale()


def test_fixed_settings_are_recorded_before_the_work_and_never_change(step, runner):
    def fails() -> None:
        raise UserError("The disk is full.")

    with pytest.raises(UserError, match="disk is full"):
        runner.run(dataclasses.replace(step, fixed=True, work=fails))
    runner.run(dataclasses.replace(step, fixed=True))
    with pytest.raises(UserError, match=r"rows was 4, is now 5"):
        runner.run(dataclasses.replace(step, fixed=True, settings={"rows": 5, "sources": ["a"]}))


def test_a_step_that_cannot_be_done_is_recorded_and_tried_again(step, runner, capsys):
    runner.run(dataclasses.replace(step, work=lambda: "There are too few texts."))
    assert "Score: left out. There are too few texts." in capsys.readouterr().err
    assert read_json(runner.path) == [
        {"step": "score", "title": "Score", "left_out": "There are too few texts."}
    ]
    assert (runner.ran, step.is_stale(), step.path_of_settings.exists()) == (0, True, False)
    runner.run(step)
    assert "left_out" not in read_json(runner.path)[0]


def test_a_step_without_outputs_always_runs_and_says_whether_it_did_anything(runner):
    runner.run(Step("tasks", "Tasks", lambda: False))
    assert runner.ran == 0
    runner.run(Step("tasks", "Tasks", lambda: True))
    assert runner.ran == 1

"""Several processes share the runs of one evaluation: each run is made once, and none is forgotten."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clm_detour.config.schema import FineTuning
from clm_detour.evaluate.command import evaluate_models
from clm_detour.evaluate.finetune.experiment import remove_what_is_left
from clm_detour.evaluate.finetune.run import Run, RunOptions
from clm_detour.evaluate.sample_tasks import SAMPLE_TASKS
from clm_detour.utils.locks import claimed

SETTINGS = {"tasks": ["SampleVerdict"], "seeds": [1, 2], "documents": 12, "protocol": {"epochs": 1}}


@pytest.fixture
def evaluate(tiny_base) -> Callable[[Path], int]:
    """A function that evaluates a model and returns the number of runs that it has made."""
    return lambda folder: evaluate_models(FineTuning(**SETTINGS), {"ours": str(tiny_base)}, folder, "made")[1]


@pytest.mark.parametrize("finishes", [True, False])
def test_a_run_of_another_process_is_waited_for_and_made_only_if_that_ends_without_it(
    evaluate, tmp_path, capsys, finishes
):
    assert evaluate(tmp_path / "elsewhere") == 2
    task, other = (tmp_path / name / "ours" / "SampleVerdict" for name in ("shared", "elsewhere"))
    made: list[int] = []
    with claimed(task / ".1.lock") as free:
        assert free
        thread = threading.Thread(target=lambda: made.append(evaluate(tmp_path / "shared")))
        thread.start()
        said = ""
        deadline = time.monotonic() + 120
        while "Another process makes ours on SampleVerdict, seed 1; waiting" not in said:
            said += " ".join(capsys.readouterr().err.split())
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        assert (task / "2.json").exists()
        assert not (task / "1.json").exists()
        if finishes:
            shutil.copy(other / "1.json", task / "1.json")
    thread.join(120)
    assert made == [1 if finishes else 2]
    assert (task / "1.json").exists()
    assert not list(task.glob(".*"))


def test_what_a_killed_worker_has_left_is_removed_unless_the_run_is_made_now(tmp_path):
    run = Run("ours", "model", SAMPLE_TASKS["SampleVerdict"], 1, RunOptions(), tmp_path)
    mine, others = tmp_path / ".1.json.tmp77@host", tmp_path / ".12.json.tmp77@host"
    mine.touch()
    others.touch()
    with claimed(run.lock):
        remove_what_is_left(run)
    assert mine.exists()
    remove_what_is_left(run)
    assert not mine.exists()
    assert others.exists()

"""Evaluation on a cluster that loses a machine, and two commands that share an evaluation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clm_detour.config.schema import FineTuning
from clm_detour.evaluate.command import evaluate_models
from clm_detour.evaluate.finetune import experiment
from clm_detour.evaluate.finetune.run import Run
from clm_detour.utils.parallel import Engine, Worker
from ray_nodes import TIMEOUT, hang_if_lost, ray_cluster, second_node_lost, wait_until

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Any]:
    with ray_cluster(2, Path(__file__).parent) as found:
        yield found


SETTINGS = {"tasks": ["SampleVerdict"], "seeds": [1, 2, 3], "documents": 12, "protocol": {"epochs": 1}}
MADE_BY = ("seconds", "finished", "environment")


def make_half(documents: Any, run: Run, worker: Worker) -> str | None:
    """Make a run; on the node that is lost, hang when it has its lock."""
    root = run.folder.parents[2]
    fine_tune = experiment.fine_tune

    def hang_first(*arguments: Any) -> dict[str, Any]:
        hang_if_lost(root)
        return fine_tune(*arguments)

    experiment.fine_tune = hang_first
    try:
        return experiment.make_in_worker(documents, run, worker)
    finally:
        experiment.fine_tune = fine_tune


def records(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/*/[0-9].json")):
        record = json.loads(path.read_text())
        found[str(path.relative_to(folder))] = {key: record[key] for key in record.keys() - set(MADE_BY)}
    for path in sorted(folder.glob("*/*/*.jsonl")):
        found[str(path.relative_to(folder))] = path.read_text()
    return found


def test_an_evaluation_has_the_same_scores_although_a_machine_is_lost(
    cluster, tiny_base, tmp_path, monkeypatch
):
    models = {"ours": str(tiny_base)}
    evaluate_models(FineTuning(**SETTINGS, jobs=2), models, tmp_path / "alone", "made")
    monkeypatch.setattr(experiment, "parallel_map", mapped_half(experiment.parallel_map))
    with second_node_lost(cluster, tmp_path):
        _, made = evaluate_models(
            FineTuning(**SETTINGS), models, tmp_path / "cluster", "made", Engine(cluster.address)
        )
    assert made == 3
    assert len(records(tmp_path / "alone")) == 6
    assert records(tmp_path / "cluster") == records(tmp_path / "alone")
    left = [path for path in (tmp_path / "cluster").rglob(".*") if path.is_file()]
    assert left == []


def mapped_half(parallel_map: Callable[..., Any]) -> Callable[..., Any]:
    """Return `parallel_map` with `make_half` in place of the function that makes runs."""
    return lambda function, *arguments, **options: parallel_map(make_half, *arguments, **options)


EVALUATION = """
name: made
run_dir: {folder}
tasks: [SampleVerdict]
seeds: [1, 2, 3, 4, 5, 6]
documents: 12
protocol: {{epochs: 15}}
"""


@pytest.fixture
def start(cluster, tiny_base, tmp_path) -> Callable[[str], subprocess.Popen[bytes]]:
    """A function that starts the command, and writes what it says to a file."""
    config = tmp_path / "eval.yaml"
    config.write_text(EVALUATION.format(folder=tmp_path / "evaluated"))
    program = "from clm_detour.__main__ import main; main()"
    words = [sys.executable, "-c", program, "evaluate", str(config), f"--model=ours={tiny_base}"]
    words += ["--engine", "ray", "--address", cluster.address]

    def command(name: str) -> subprocess.Popen[bytes]:
        with open(tmp_path / name, "w") as log:
            return subprocess.Popen(words, stdout=log, stderr=log)

    return command


def finished(folder: Path) -> int:
    return len(list(folder.glob("evaluated/ours/SampleVerdict/[0-9].json")))


def test_two_commands_at_once_make_each_run_once(start, tmp_path):
    commands = [start("first.log"), start("second.log")]
    codes = [command.wait(TIMEOUT) for command in commands]
    said = [(tmp_path / f"{name}.log").read_text() for name in ("first", "second")]
    assert codes == [0, 0], said
    assert finished(tmp_path) == 6
    assert sum(int(count) for text in said for count in re.findall(r"(\d+) runs done", text)) == 6, said


def test_a_command_that_is_killed_goes_on_where_it_was(start, tmp_path):
    first = start("first.log")
    wait_until(lambda: finished(tmp_path) > 0 or first.poll() is not None)
    first.kill()
    before = finished(tmp_path)
    assert 0 < before < 6, (tmp_path / "first.log").read_text()
    second = start("second.log")
    assert second.wait(TIMEOUT) == 0, (tmp_path / "second.log").read_text()
    assert finished(tmp_path) == 6
    [made] = re.findall(r"(\d+) runs done", (tmp_path / "second.log").read_text())
    assert int(made) <= 6 - before

"""Preparation and evaluation on a cluster that loses a machine: the bytes and scores of one machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clm_detour.config.schema import FineTuning
from clm_detour.data import groups, prepare
from clm_detour.data.groups import Group
from clm_detour.data.prepare import prepare_source
from clm_detour.data.tokenization import Settings, write_tokens
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.evaluate.command import evaluate_models
from clm_detour.evaluate.finetune import experiment
from clm_detour.evaluate.finetune.run import Run
from clm_detour.utils.parallel import Engine, Worker
from ray_nodes import ray_cluster, wait_until

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow
LOSE = "lose-this-machine"  # a file with the id of a machine whose first task hangs half-way until it is lost


@pytest.fixture
def cluster() -> Iterator[Any]:
    with ray_cluster(2, Path(__file__).parent) as found:
        yield found


@pytest.fixture
def lose_a_machine(cluster, tmp_path) -> Iterator[Callable[[], None]]:
    """A function that kills the second machine as soon as it holds a task that is half done."""
    [second] = cluster.worker_nodes
    (tmp_path / LOSE).write_text(second.node_id)
    threads = []

    def kill() -> None:
        wait_until((tmp_path / "half-done").exists)
        cluster.remove_node(second, allow_graceful=False)

    def arrange() -> None:
        threads.append(threading.Thread(target=kill))
        threads[0].start()

    yield arrange
    threads[0].join()
    assert not cluster.worker_nodes


def hang_if_lost(folder: Path) -> None:
    """Say that a task is half done, and wait for the end, if this machine is the one that is lost."""
    if ray.get_runtime_context().get_node_id() == (folder / LOSE).read_text():
        (folder / "half-done").touch()
        threading.Event().wait()


def write_tokens_half(settings: Settings, group: Group, worker: Worker) -> dict[str, Any]:
    """Tokenize a group; on the machine that is lost, hang once a shard of it is on disk."""
    root = Path(settings.source.path).parent

    def report(*amounts: int) -> None:
        worker.report(*amounts)
        if any(group.folder.rglob("shard-*.json")):
            hang_if_lost(root)

    return write_tokens(settings, group, replace(worker, report=report))


def everything_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_source_has_the_same_bytes_although_a_machine_is_lost(
    cluster, lose_a_machine, tiny_data, tmp_path, monkeypatch
):
    monkeypatch.setattr(prepare, "PART_TOKENS", 1500)
    monkeypatch.setattr(prepare, "SHARD_TOKENS", 4000)
    monkeypatch.setattr(prepare, "SMALL_BYTES", 0)
    monkeypatch.setattr(groups, "LARGE_BYTES", 0)
    tokenizer = load_tokenizer(str(tiny_data / "tokenizer"))
    (tmp_path / "corpus").mkdir()
    for number in range(6):
        lines = (json.dumps({"text": f"Patient {number} was given {i} mg. " * 9}) for i in range(120))
        (tmp_path / "corpus" / f"{number}.jsonl").write_text("\n".join(lines))

    def prepared(name: str, processes: int | None) -> dict[str, bytes]:
        prepare_source(
            "notes", f"{tmp_path}/corpus", tmp_path / name, tokenizer, 64, 1, 0.1, processes=processes
        )
        return everything_in(tmp_path / name)

    alone = prepared("alone", 1)
    monkeypatch.setattr(prepare, "write_tokens", write_tokens_half)
    lose_a_machine()
    with Engine(cluster.address).serving([tmp_path]):
        assert prepared("cluster", None) == alone


SETTINGS = {"tasks": ["SampleVerdict"], "seeds": [1, 2, 3], "documents": 12, "protocol": {"epochs": 1}}
MADE_BY = ("seconds", "finished", "environment")


def make_half(documents: Any, run: Run, worker: Worker) -> str | None:
    """Make a run; on the machine that is lost, hang when it has its lock."""
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
    cluster, lose_a_machine, tiny_base, tmp_path, monkeypatch
):
    models = {"ours": str(tiny_base)}
    evaluate_models(FineTuning(**SETTINGS, jobs=2), models, tmp_path / "alone", "made")
    monkeypatch.setattr(experiment, "parallel_map", mapped_half(experiment.parallel_map))
    lose_a_machine()
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
protocol: {{epochs: 3}}
"""


@pytest.mark.parametrize("killed", [False, True])
def test_two_drivers_make_each_run_once(cluster, tiny_base, tmp_path, killed):
    """The second starts while the first works, or right after the first was killed."""
    config, folder = tmp_path / "eval.yaml", tmp_path / "evaluated"
    config.write_text(EVALUATION.format(folder=folder))
    program = "from clm_detour.__main__ import main; main()"
    words = [sys.executable, "-c", program, "evaluate", str(config), f"--model=ours={tiny_base}"]
    words += ["--engine", "ray", "--address", cluster.address]

    def start(name: str) -> subprocess.Popen[bytes]:
        with open(tmp_path / name, "w") as log:
            return subprocess.Popen(words, stdout=log, stderr=log)

    first = start("first.log")
    wait_until(lambda: any(folder.rglob(".*.lock")) or first.poll() is not None)
    if killed:
        first.kill()
    second = start("second.log")
    codes = [driver.wait(300) for driver in (first, second)]
    said = [(tmp_path / f"{name}.log").read_text() for name in ("first", "second")]
    assert codes == [-9 if killed else 0, 0], said
    assert len(list(folder.glob("ours/SampleVerdict/[0-9].json"))) == 6
    if not killed:
        made = [int(count) for text in said for count in re.findall(r"(\d+) runs done", text)]
        assert sum(made) == 6, said

"""The contract of `parallel_map`, which holds on one machine and on a cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clm_detour.utils.errors import UserError
from clm_detour.utils.parallel import LOCAL, Engine, Worker, parallel_map
from ray_nodes import ray_cluster


@pytest.fixture(scope="module", autouse=True, params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def engine(request, tmp_path_factory) -> Iterator[Engine]:
    """The engine on which all tests of this file run."""
    if request.param == "local":
        yield LOCAL
        return
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with ray_cluster(2, Path(__file__).parent) as cluster:
        found = Engine.chosen("ray", cluster.address)
        with found.serving([tmp_path_factory.mktemp("shared")]):
            yield found


def square(common: int, task: int, worker: Worker) -> tuple[int, int]:
    for _ in range(10):
        worker.report(task, 1)
    return common + task * task, os.getpid()


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_results_are_in_the_order_of_the_tasks(engine, processes):
    amounts, results = [], []
    found = parallel_map(
        square,
        range(20),
        7,
        processes=processes,
        on_progress=lambda *some: amounts.append(some[:2]),
        on_result=results.append,
    )
    assert [value for value, _ in found] == [7 + task * task for task in range(20)]
    assert sorted(results) == sorted(found)
    assert [sum(some) for some in zip(*amounts, strict=True)] == [10 * sum(range(20)), 200]
    assert (os.getpid() in {pid for _, pid in found}) == (processes == 1 and engine is LOCAL)


def test_no_task_has_no_results():
    assert parallel_map(square, [], 0, processes=4) == []


def wait_for_progress(folder: Path, task: int, worker: Worker) -> None:
    deadline = time.monotonic() + 60
    while not (folder / "seen").exists():
        worker.report(1)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_progress_is_shown_while_tasks_run(tmp_path):
    seen = []

    def on_progress(*amounts: int) -> None:
        seen.append(amounts[0])
        (tmp_path / "seen").touch()

    parallel_map(wait_for_progress, [0, 1], tmp_path, processes=2, on_progress=on_progress)
    assert all(amount > 0 for amount in seen)


def working_folder(common: object, task: int, worker: Worker) -> str:
    return os.getcwd()


def test_relative_paths_mean_the_same_in_every_worker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(parallel_map(working_folder, [0, 1], processes=2)) == {str(tmp_path)}


def fail(folder: Path, task: int, worker: Worker) -> None:
    (folder / str(task)).touch()
    if task == 1:
        deadline = time.monotonic() + 60
        while not (folder / "0").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        raise UserError("This file is damaged.")
    time.sleep(120)


def test_the_first_error_ends_all_workers_and_is_shown_as_it_is(tmp_path):
    began = time.monotonic()
    with pytest.raises(UserError) as raised:
        parallel_map(fail, range(4), tmp_path, processes=2)
    assert str(raised.value) == "This file is damaged."
    assert time.monotonic() - began < 100


def divide(common: object, task: int, worker: Worker) -> float:
    return 1 / task


def test_an_error_of_the_code_keeps_its_type():
    with pytest.raises(ZeroDivisionError):
        parallel_map(divide, [1, 0], processes=2)

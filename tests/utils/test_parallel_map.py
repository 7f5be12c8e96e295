"""The processes of one machine: which run tasks, what they share, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clm_detour.utils.errors import UserError
from clm_detour.utils.parallel import Worker, parallel_map
from commands import Command


def square(common: int, task: int, worker: Worker) -> tuple[int, int]:
    return common + task * task, os.getpid()


def test_a_single_task_and_no_task_need_no_other_process():
    assert parallel_map(square, [3], 0, processes=4) == [(9, os.getpid())]
    assert parallel_map(square, [], 0, processes=4) == []


def device(folder: Path, task: int, worker: Worker) -> str:
    (folder / str(task)).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)  # until each worker has a task
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_workers_take_devices_in_turn(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    found = parallel_map(device, range(3), tmp_path, processes=3, on_gpus=True)
    assert sorted(found) == ["4", "4", "6"]


def threads(common: object, task: int, worker: Worker) -> tuple[int, int]:
    while task == 1 and worker.threads() == 1:
        time.sleep(0.01)
    return worker.processes, worker.threads()


def test_the_last_task_has_all_cores(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        pytest.skip("one core")
    found = parallel_map(threads, range(2 + cores), processes=2)
    assert found[0] == (2, 1)
    assert found[1] == (2, cores)


def kill_yourself(common: object, task: int, worker: Worker) -> None:
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_the_system_kills_is_one_sentence():
    with pytest.raises(UserError, match="lack of memory: set jobs lower and run the same command again"):
        parallel_map(kill_yourself, [0, 1, 2], processes=2, remedy="set jobs lower")


PROGRAM = """
import sys, time
from pathlib import Path
from clm_detour.utils.errors import exit_on_user_error
from clm_detour.utils.parallel import parallel_map
from clm_detour.utils.signals import requeue_on_signals

def flood(folder, task, worker):
    (folder / f"task-{task}").touch()
    while True:
        worker.report(*range(3))

if __name__ == "__main__":
    with exit_on_user_error(), requeue_on_signals():
        parallel_map(flood, range(6), Path(sys.argv[1]), processes=2)
"""


@pytest.fixture
def command(tmp_path) -> Command:
    (tmp_path / "program.py").write_text(PROGRAM)
    return Command([sys.executable, str(tmp_path / "program.py"), str(tmp_path)], tmp_path / "log")


REPORT_MASK = """
import os, signal, sys
from pathlib import Path
if "loky" in "".join(sys.orig_argv) and "tracker" not in "".join(sys.orig_argv):
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    (Path(__file__).parent / f"worker-{os.getpid()}").write_text(str(blocked))
"""


def test_workers_start_with_ctrl_c_blocked(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(REPORT_MASK)
    (tmp_path / "program.py").write_text(PROGRAM.replace("while True:", "for number in range(3):"))
    words = [sys.executable, str(tmp_path / "program.py"), str(tmp_path)]
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(words, check=True, timeout=60, env={**os.environ, "PYTHONPATH": paths})
    assert {file.read_text() for file in tmp_path.glob("worker-*")} == {"True"}


def test_ctrl_c_while_processes_start(command):
    command.wait_until(lambda: command.children() >= 2)
    command.assert_leaves_at_ctrl_c()


def test_ctrl_c_while_tasks_run(command, tmp_path):
    command.wait_until(lambda: len(list(tmp_path.glob("task-*"))) == 2)
    command.assert_leaves_at_ctrl_c()


def test_a_cluster_that_wants_its_machine_back(command, tmp_path):
    command.wait_until(lambda: len(list(tmp_path.glob("task-*"))) == 2)
    os.killpg(command.process.pid, signal.SIGTERM)
    assert command.end() == 75
    assert command.said() == "Asked to leave (SIGTERM); exit code 75: run the same command again to resume.\n"


SLOW_START = """
class Slow:
    def __reduce__(self):
        return wait, (sys.argv[1],)

def wait(folder):
    Path(folder, f"starting-{os.getpid()}").touch()
    time.sleep(600)

if __name__"""


def test_workers_end_that_have_not_yet_read_what_tasks_share(tmp_path):
    program = PROGRAM.replace("import sys", "import os, sys").replace("if __name__", SLOW_START)
    program = program.replace("Path(sys.argv[1]), processes", "Slow(), processes")
    (tmp_path / "program.py").write_text(program)
    command = Command([sys.executable, str(tmp_path / "program.py"), str(tmp_path)], tmp_path / "log")
    command.wait_until(lambda: len(list(tmp_path.glob("starting-*"))) == 2)
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 75


@pytest.mark.parametrize("number", [signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(command, tmp_path, number):
    command.wait_until(lambda: len(list(tmp_path.glob("task-*"))) == 2)
    command.process.send_signal(number)
    assert command.end() == -number


def test_an_exception_in_this_process_ends_the_workers(tmp_path):
    program = PROGRAM.replace("while True:", "while task:").replace(
        "processes=2)", "processes=2, on_result=lambda result: 1 / 0)"
    )
    (tmp_path / "program.py").write_text(program)
    words = [sys.executable, str(tmp_path / "program.py"), str(tmp_path)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert ended.stderr.rstrip().endswith("ZeroDivisionError: division by zero")

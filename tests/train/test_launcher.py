"""The exit code of the launcher decides whether a cluster starts the command again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clm_detour.train import launch as starting
from clm_detour.train import launcher
from clm_detour.train.launcher import exit_code, signal_processes
from clm_detour.utils.signals import REQUEUE, Requeue
from commands import Command

RANKS = """
import os, sys, time
from clm_detour.utils.errors import exit_on_user_error
from clm_detour.utils.signals import requeue_on_signals

with exit_on_user_error(), requeue_on_signals():
    if os.environ["RANK"] == "{first}":
        time.sleep(1)
        sys.exit({code})
    time.sleep(60)  # loads
"""


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """A function from a script to the code with which the launcher of two such processes leaves."""

    def run(text: str) -> int:
        script = tmp_path / "ranks.py"
        script.write_text(text)
        monkeypatch.setattr(sys, "argv", ["launcher", "-n", "2", str(script)])
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        with pytest.raises(SystemExit) as left:
            launcher.main()
        return left.value.code

    return run


@pytest.mark.parametrize(("first", "code"), [(1, 3), (0, 3), (1, REQUEUE)])
def test_a_process_that_fails_while_another_loads_decides(launch, first, code):
    assert launch(RANKS.format(first=first, code=code)) == code


MISTAKE = """
import os, time
from clm_detour.utils.errors import UserError, exit_on_user_error
from clm_detour.utils.signals import requeue_on_signals
from clm_detour.train import main

main.ERROR_DELAY = {patience}
rank = os.environ["RANK"]
with exit_on_user_error(), main.delay_errors(), requeue_on_signals():
    print("a line of process", rank, flush=True)
    if rank in "{mistaken}":
        time.sleep(0.5 * (rank == "0"))
        raise UserError("train.batch_rows is 7.")
    if "{lost}":
        time.sleep(1)
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:40123")
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("mistaken", "lost", "patience"), [("01", "", 20), ("0", "", 20), ("1", "", 0.1), ("1", "lost", 1)]
)
def test_a_mistake_is_one_sentence_and_exit_code_2_whichever_process_makes_it(
    launch, capfd, mistaken, lost, patience
):
    assert launch(MISTAKE.format(mistaken=mistaken, lost=lost, patience=patience)) == 2
    out, err = capfd.readouterr()
    assert out == "a line of process 0\n"
    assert err == "Error: train.batch_rows is 7.\n"


def test_a_crash_of_another_process_than_the_first_shows_what_that_one_printed(launch, capfd):
    crash = "import os, time\nif os.environ['RANK'] == '1':\n    raise KeyError('here')\ntime.sleep(60)"
    frame = "from clm_detour.utils.errors import exit_on_user_error\nwith exit_on_user_error():\n    "
    assert launch(frame + crash.replace("\n", "\n    ")) == 1
    assert capfd.readouterr().err.rstrip().endswith("KeyError: 'here'")


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGKILL, ", perhaps because memory ran out"), (signal.SIGABRT, "")]
)
def test_a_process_that_a_signal_ends_is_named(launch, capfd, number, cause):
    killed = f"if os.environ['RANK'] == '1':\n        os.kill(os.getpid(), {number:d})\n    time.sleep(60)"
    imports = "import os, time\nfrom clm_detour.utils.errors import exit_on_user_error\n"
    frame = f"{imports}with exit_on_user_error():\n    "
    assert launch(frame + killed) == 128 + number
    assert capfd.readouterr().err == f"Process 1 was ended by {number.name}{cause}.\n"


@pytest.mark.parametrize(("code", "expected"), [(2, SystemExit), (REQUEUE, Requeue), (1, None)])
def test_the_command_that_started_the_launcher_adds_nothing_to_a_mistake(
    tmp_path, monkeypatch, capfd, code, expected
):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexit {code}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    if expected is None:
        assert starting.run_launcher(2, ["train.py"], "clm") == code
    else:
        with pytest.raises(expected) as left:
            starting.run_launcher(2, ["train.py"], "clm")
        assert left.value.code == code
    assert capfd.readouterr() == ("", "")


def test_arguments_that_do_not_fit_are_one_sentence(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["launcher", "-n", "0", "train.py"])
    with pytest.raises(SystemExit) as left:
        launcher.main()
    assert left.value.code == 2
    assert capfd.readouterr().err == "Error: The launcher cannot start: The nproc must be 1 or greater\n"


@pytest.mark.parametrize("command", [["-m", "clm_detour.train"], ["scripts/train.py"]])
def test_a_phase_must_be_named_however_training_is_started(command):
    root = Path(__file__).parents[2]
    words = [sys.executable, *command]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Usage: python -m clm_detour.train CONFIG arm=ARM phase=PHASE")


def test_ctrl_c_is_one_sentence(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(MISTAKE.format(mistaken="", lost="", patience=20))
    words = [sys.executable, "-m", "clm_detour.train.launcher", "-n", "2", str(script)]
    command = Command(words, tmp_path / "log")
    command.wait_until(lambda: "a line of process 0" in command.said())
    command.assert_leaves_at_ctrl_c()


@pytest.mark.parametrize(
    ("lowest", "failed", "asked", "expected"),
    [
        (0, [], False, 0),
        (0, [], True, 0),
        (REQUEUE, [REQUEUE, REQUEUE], False, REQUEUE),  # another machine was asked
        (REQUEUE, [REQUEUE, 1], False, 1),
        (REQUEUE, [-9], False, -9),
        (REQUEUE, [], False, 1),  # the launcher itself failed
        (143, [], True, REQUEUE),  # asked before they could listen
    ],
)
def test_only_who_was_asked_to_leave_is_started_again(lowest, failed, asked, expected):
    assert exit_code(lowest, failed, asked) == expected


def test_a_process_that_has_just_left_does_not_keep_a_signal_from_the_others():
    gone, there, other = (subprocess.Popen(["sleep", "60"]) for _ in range(3))
    gone.kill()
    signal_processes({0: gone, 1: there}, signal.SIGTERM)
    assert there.wait(timeout=10) == -signal.SIGTERM
    assert other.poll() is None  # a child process that is not a rank
    other.kill()
    for process in (gone, other):
        process.wait()


THREADS = "import os, sys\nsys.exit(int(os.environ['OMP_NUM_THREADS']))"


@pytest.mark.parametrize(("given", "expected"), [(None, 3), ("7", 7)])
def test_processes_share_the_cores_unless_the_user_says_otherwise(launch, monkeypatch, given, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(launcher, "usable_cores", lambda: 7)
    assert launch(THREADS) == expected

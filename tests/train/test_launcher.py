"""The launcher leaves with the code of what happened, which decides whether a cluster starts the command again."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from clm_detour.preemption import REQUEUE
from clm_detour.train import launcher
from clm_detour.train.launcher import exit_code, tell_processes

RANKS = """
import os, sys, time
from clm_detour.preemption import requeue_on_signals

with requeue_on_signals():
    if os.environ["RANK"] == "{first}":
        time.sleep(1)
        sys.exit({code})
    time.sleep(60)  # loads
"""


@pytest.mark.parametrize(("first", "code"), [(1, 3), (0, 3), (1, REQUEUE)])
def test_a_process_that_fails_while_another_loads_decides(tmp_path, monkeypatch, first, code):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS.format(first=first, code=code))
    monkeypatch.setattr(sys, "argv", ["launcher", "-n", "2", str(script)])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(SystemExit) as left:
        launcher.main()
    assert left.value.code == code


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


def test_a_process_that_has_just_left_does_not_keep_a_signal_from_the_others(monkeypatch):
    gone, there = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    children = [psutil.Process(process.pid) for process in (gone, there)]
    gone.kill()
    gone.wait()
    monkeypatch.setattr(psutil.Process, "children", lambda self: children)
    tell_processes(signal.SIGTERM)
    assert there.wait(timeout=10) == -signal.SIGTERM

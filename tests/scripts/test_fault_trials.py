"""The trials of `scripts/fault_trials.py`, on two phases and with few kills."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "fault_trials.py"


def test_nothing_is_lost_and_nothing_done_twice():
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--small"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("ok")]
    for what in (
        "killed 3 times",
        "SIGTERM: exit code 75",
        "Ctrl-C: exit code 130",
        "No space left",
        "is damaged",
        "loss nan",
        "A loader process died",
    ):
        assert sum(what in line for line in lines) == 1

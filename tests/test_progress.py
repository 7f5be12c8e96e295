"""In a log file, progress is plain lines with rate and time left."""

from __future__ import annotations

import time

import pytest

from clm_detour import progress as module
from clm_detour.progress import human, progress


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (999, "999"), (1234, "1.23k"), (5e10, "50B")])
def test_human(number, text):
    assert human(number) == text


def test_the_rate_counts_only_what_this_run_did(monkeypatch, capsys):
    monkeypatch.setattr(module, "LOG_SECONDS", 0.0)
    with progress("Work", 1000, "tok") as advance:
        advance(900, earlier=True)
        time.sleep(0.2)
        advance(10, note="loss 1.5")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("Work: 910/1k tok, ")
    assert last.endswith("loss 1.5")
    rate = float(last.split(", ")[1].split()[0])
    assert rate < 60

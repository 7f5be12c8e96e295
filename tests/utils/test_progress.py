"""In a log file, progress is plain lines with rate and time left."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from clm_detour.utils import progress as module
from clm_detour.utils.progress import human, progress


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


ODD = "runs/run [old] :x: [/bold] {x}"  # of what rich would read as mark-up


def test_text_is_printed_as_it_is(capsys):
    table = Table(title=ODD)
    table.add_row(ODD)
    with progress(ODD, 1, "it") as advance:
        module.console.print(ODD, soft_wrap=True)
        module.console.print(table)
        module.warn(ODD)
        advance(1, note=ODD)
    assert capsys.readouterr().err.count(ODD) == 6


def test_a_bar_shows_description_and_note_as_they_are(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200, markup=False, emoji=False)
    monkeypatch.setattr(module, "console", console)
    with progress(ODD, 1, "it") as advance:
        advance(1, note=ODD)
    assert screen.getvalue().count(ODD) >= 2


def test_no_message_spells_a_style_in_brackets():
    """It would be shown: the console takes no mark-up, and a style is given beside the text."""
    spelt = re.compile(r"\[/?(?:bold|dim|red|green|yellow|cyan)(?: \w+)*\]")
    sources = Path(module.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if spelt.search(path.read_text(encoding="utf-8"))] == []

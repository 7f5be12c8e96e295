"""Progress fits into 80 columns on a terminal, and is plain lines in a log file."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from clm_detour.utils import progress as module
from clm_detour.utils.progress import Work, human, numbered, progress, shortened


@pytest.fixture
def screen(monkeypatch):
    """A function that puts a terminal in the place of the console, and returns what it shows."""

    def make(width: int = 80) -> io.StringIO:
        shown = io.StringIO()
        console = Console(file=shown, force_terminal=True, width=width, markup=False, emoji=False)
        monkeypatch.delenv("FORCE_COLOR", raising=False)
        monkeypatch.setattr(module, "console", console)
        return shown

    return make


@pytest.fixture
def now(monkeypatch):
    """The time in seconds; a test that changes `now[0]` lets it pass."""
    time = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: time[0])
    return time


def frames(shown: io.StringIO) -> list[str]:
    """Return what was on the screen, line by line, without control sequences."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (999, "999"), (1234, "1.23k"), (5e10, "50B")])
def test_human(number, text):
    assert human(number) == text


NAMES = ("pretrain", "pretrain.mlm_control.decay_control", "x" * 300)


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("name", NAMES)
def test_a_bar_shows_percentage_rate_and_time_left_whatever_the_length_of_name_and_note(
    screen, now, width, name
):
    shown = screen(width)
    with numbered("17/22"), progress(name, 250_000_000_000, "tokens") as advance:
        for _ in range(40):
            now[0] += 1
            advance(123_456_789, note="loss 3.212, " + "rows 99.9% full, " * 20)
        before_the_end = len(frames(shown))
        time.sleep(0.3)  # the bar is drawn ten times a second
    lines = frames(shown)[before_the_end - 1 :]
    assert all(len(line) <= width for line in lines)
    assert all(line.startswith("17/22 ") for line in lines)
    assert any("━" in line and re.search(r" 1% +123M tokens/s +0:33:05 loss 3.2", line) for line in lines), (
        lines
    )
    assert "100%" in lines[-1]
    assert shortened(name, 14)[1:] in lines[-1]


def test_a_bar_ends_at_100_percent_though_its_total_was_an_estimate(screen):
    shown = screen()
    with progress("Read documents", 800, "documents") as advance:
        advance(400)
    assert "100%" in frames(shown)[-1]
    shown = screen()
    with progress("Fine-tuning", None, "runs") as advance:
        advance(3)
    assert "100%" in frames(shown)[-1]


def test_work_that_failed_does_not_end_at_100_percent(screen):
    shown = screen()

    def work() -> None:
        with progress("Read", 800, "documents") as advance:
            advance(400)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert "50%" in frames(shown)[-1]


def test_the_rate_is_that_of_the_last_half_minute(now):
    work = Work(1000, "tok")
    for step in range(100):
        now[0] += 1
        work.add(1 if step < 60 else 5)
    assert work.rate == pytest.approx(5)
    assert work.time == "0:02:28"  # (1000 - 60 - 40 * 5) / 5 s


def test_work_slower_than_half_a_minute_has_a_rate_too(now):
    work = Work(10, "runs")
    for _ in range(3):
        now[0] += 100
        work.add(1)
    work.add(0)
    assert work.rate == pytest.approx(0.01)
    assert work.time == "0:11:40"


def test_the_rate_counts_only_what_this_run_did(now):
    work = Work(1000, "tok")
    now[0] += 50
    work.restart(900)
    assert (work.rate_text, work.percent, work.time) == ("", " 90%", "")
    now[0] += 2
    work.add(10)
    assert work.rate_text == "5 tok/s"


def test_a_log_has_few_lines_and_no_control_characters(capsys, now):
    with numbered("9/22"), progress("pretrain", 100_000, "tok") as advance:
        for _ in range(10_000):
            now[0] += 1
            advance(10, note="loss 3.212")
    lines = capsys.readouterr().err.splitlines()
    assert 40 < len(lines) < 80  # in nearly three hours
    assert lines[0] == "9/22 pretrain: 100/100k tok, 10 tok/s, 2:46:30 left, loss 3.212"
    assert lines[-1] == "9/22 pretrain: 100k/100k tok, 10 tok/s, loss 3.212"
    assert all(line.isprintable() for line in lines)


def test_a_ci_service_that_forces_colours_gets_no_bar(screen, monkeypatch):
    shown = screen()
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("pretrain", 10, "tok") as advance:
        advance(10)
    assert "\r" not in shown.getvalue()
    assert "\x1b[?25l" not in shown.getvalue()  # which hides the cursor
    assert frames(shown)[-1].startswith("pretrain: 10/10 tok")


def test_the_number_of_a_step_ends_with_it(capsys):
    with numbered("9/22"), progress("One", 1) as advance:
        advance(1)
    with progress("Other", 1) as advance:
        advance(1)
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["9/22 One", "Other"]


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


def test_a_bar_shows_description_and_note_as_they_are(screen):
    shown = screen(200)
    with progress(ODD, 1, "it") as advance:
        advance(1, note=ODD)
    assert shown.getvalue().count(ODD) >= 2


def test_no_message_spells_a_style_in_brackets():
    """It would be shown: the console takes no mark-up, and a style is given beside the text."""
    spelt = re.compile(r"\[/?(?:bold|dim|red|green|yellow|cyan)(?: \w+)*\]")
    sources = Path(module.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if spelt.search(path.read_text(encoding="utf-8"))] == []

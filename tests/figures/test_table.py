"""One table in every format."""

from __future__ import annotations

import io

import pytest
from markupsafe import Markup
from rich.console import Console

from clm_detour.figures.renderers import csv_text, html, latex, markdown, plain, print_table, rich_table
from clm_detour.figures.table import Cell, Row, Table, number, with_best, with_spread


def score(value: float) -> str:
    return f"{value:.1f}"


@pytest.fixture
def table() -> Table:
    best, other = with_best([81.04, 79.0], score, lowest=False)
    rows = [
        Row([Markup('<span class="key"></span>a_1'), with_spread(best, 0.4, (80.0, 82.0))]),
        Row(["b | <c>", with_spread(other, None, None)], "published"),
    ]
    return Table("Scores on tasks", ["Model", "GAD"], rows, notes=["A note."])


def test_html_escapes_text_keeps_markup_and_marks_the_best(table):
    text = html(table)
    assert '<th scope="row"><span class="key"></span>a_1</th>' in text
    assert '<strong class="best">81.0<span class="unseen"> (best)</span></strong> ± 0.4' in text
    assert '<tr class="published">' in text
    assert "b | &lt;c&gt;" in text
    assert "A note." in text


def test_markdown_escapes_bars_and_sets_the_best_bold(table):
    assert markdown(table).splitlines() == [
        "| Model | GAD |",
        "|---|---|",
        "| a_1 | **81.0 ± 0.4** |",
        "| b \\| <c> | 79.0 |",
        "",
        "- A note.",
    ]


def test_latex_has_a_rule_between_kinds_of_rows(table):
    lines = latex(table).splitlines()
    assert r"a\_1 & \textbf{81.0}{\tiny$\pm$0.4} \\" in lines
    assert lines.count(r"\midrule") == 2


def test_plain_text_has_columns_of_one_width(table):
    assert plain(table).plain.splitlines() == [
        "Model            GAD",
        "a_1      [81.0 ± 0.4]",
        "b | <c>         79.0",
        "In brackets: the best.",
        "A note.",
    ]


def test_on_a_terminal_the_best_is_bold():
    shown = io.StringIO()
    cells = with_best([81.04, 79.0], score, lowest=False)
    made = Table("t", ["Model", "GAD"], [Row(["a", cells[0]]), Row(["b", cells[1]])])
    print_table(made, Console(file=shown, force_terminal=True, color_system="standard", width=80))
    assert "\x1b[1m81.0\x1b[0m" in shown.getvalue()
    assert "79.0\nIn bold: the best." in shown.getvalue()
    assert "*" not in shown.getvalue()


def test_columns_that_do_not_fit_follow_below_with_the_names():
    tasks = ["SampleEntities", "SampleVerdict", "a task with a long name", "all (3 of 3)"]
    made = Table("t", ["", *tasks], [Row(["detour", "81.0", "79.0", "1.0", "2.0"])], notes=["A note " * 20])
    lines = plain(made, width=50).plain.splitlines()
    assert all(len(line) <= 50 for line in lines)
    assert [line.split("  ")[0] for line in lines if line[:6].strip()][:2] == ["detour", "detour"]
    for name, value in zip(tasks, ("81.0", "79.0", "1.0", "2.0"), strict=True):
        (place,) = [number for number, line in enumerate(lines) if name in line]
        end = lines[place].index(name) + len(name)
        assert lines[place + 1][:end].endswith(value)


def test_csv_has_a_column_for_each_value_unrounded(table):
    assert csv_text(table).splitlines() == [
        "Model,GAD,GAD std,GAD low,GAD high",
        "a_1,81.04,0.4,80.0,82.0",
        "b | <c>,79.0,,,",
    ]


def test_words_are_values_and_a_dash_is_none():
    made = Table(
        "t",
        ["A", "B"],
        [Row(["–", Cell("", {"": None})]), Row(["x − y\u202f%", number(float("nan"), score)])],
    )
    assert csv_text(made).splitlines() == ["A,B", ",", "x - y %,"]


def test_the_console_shows_the_same_cells(table):
    made = rich_table(table)
    cells = [[str(cell) for cell in column.cells] for column in made.columns]
    assert cells == [["a_1", "b | <c>"], ["81.0 ± 0.4", "79.0"]]
    assert [cell.style for cell in made.columns[1].cells] == ["bold", ""]
    assert [column.justify for column in made.columns] == ["left", "right"]


def test_what_reads_the_same_is_best_together_and_a_single_value_is_not():
    assert [cell.best for cell in with_best([3.0001, 2.9999, None, 4.0], score, lowest=True)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert not with_best([3.0, None, float("nan")], score, lowest=True)[0].best

"""The page says what the scores on tasks are without, where an evaluation counted it."""

from __future__ import annotations

from clm_detour.report.load import load_run
from clm_detour.report.page import page_text


def test_the_page_lists_what_is_left_out_of_the_tasks(fake_run):
    record = "evaluation/tasks/summary.json"
    assert "Left out of the tasks" not in page_text(load_run(fake_run.path))

    def count(summary):
        summary["tasks"][0]["left_out"] = {"test annotations by overlap": 98}
        del summary["tasks"][1]["left_out"]  # as 0.1.0 wrote it

    fake_run.edit(record, count)
    page = page_text(load_run(fake_run.path))
    assert "Left out of the tasks" in page
    assert "test annotations by overlap" in page
    assert ">98<" in page

"""The report: one HTML file that needs nothing else, made from what a run left behind."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from clm_detour.records.run_folder import RunFolder
from clm_detour.report.caveats import caveats
from clm_detour.report.files import write_files
from clm_detour.report.generated import is_all_generated
from clm_detour.report.load import load_run
from clm_detour.report.markup import render
from clm_detour.report.plots import gathered
from clm_detour.report.records import Run
from clm_detour.report.sections import SECTIONS
from clm_detour.report.verdict import verdict, what_was_done
from clm_detour.utils.files import atomic_write


def write_page(run_dir: Path) -> Path:
    """Write `run_dir/report.html` and give its path; `run_dir/report/` gets its figures and numbers (see `report.files`).

    A run that is not at its end gives a page with what is there and a list of what is missing. The same
    records give the same bytes.

    Raises:
        UserError: `run_dir` holds no run, or cannot be written to.
    """
    run, folder = load_run(run_dir), RunFolder(run_dir)
    with gathered() as attachments:
        page = page_text(run)
    write_files(run, attachments, folder.report_files)
    with atomic_write(folder.report, "w") as file:
        file.write(page)
    return folder.report


def page_text(run: Run) -> str:
    """The page."""
    sections = [section for section in (build(run) for build in SECTIONS) if section]
    style = Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))
    page = render(
        "page.html",
        run=run,
        generated=is_all_generated(run),
        style=style,
        done=what_was_done(run),
        verdict=verdict(run),
        caveats=caveats(run),
        sections=sections,
    )
    return str(page)

"""The report of a run: one HTML file that needs nothing else, with its figures and numbers as files."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from markupsafe import Markup

from clm_detour.figures import interactive
from clm_detour.figures.renderers import csv_lines, csv_text
from clm_detour.figures.table import Table, Value
from clm_detour.records.run_folder import RunFolder
from clm_detour.report.differences import cards
from clm_detour.report.generated import is_all_generated
from clm_detour.report.headline import explanation, facts, main_caveat
from clm_detour.report.load import load_run
from clm_detour.report.markup import Collected, collected, key, render
from clm_detour.report.numbers import numbers
from clm_detour.report.run import Curve, Run
from clm_detour.report.sections import SECTIONS
from clm_detour.report.sections.held_out import loss_figure
from clm_detour.report.sections.tasks import tasks_figure
from clm_detour.report.verdict import verdict, what_was_done
from clm_detour.utils.files import atomic_folder, atomic_write, write_json

INLINED = ("page.css", "page.js")


def write_page(run_dir: Path) -> Path:
    """Write `run_dir/report.html` and the folder `run_dir/report/`, and return the path of the page.

    A run that has not ended gets a page with what is there and a list of what is missing. The same records
    give the same bytes.

    Raises:
        UserError: If `run_dir` holds no run, or cannot be written to.
    """
    run, folder = load_run(run_dir), RunFolder(run_dir)
    with collected() as found:
        page = page_text(run)
    write_files(run, found, folder.report_files)
    with atomic_write(folder.report, "w") as file:
        file.write(page)
    return folder.report


def page_text(run: Run) -> str:
    """Return the page."""
    sections = [section for section in (build(run) for build in SECTIONS) if section]
    style, script = (Markup(Path(__file__).with_name(name).read_text(encoding="utf-8")) for name in INLINED)
    page = render(
        "page.html",
        title=f"CLM detour: {run.name}",
        run=run,
        generated=is_all_generated(run),
        style=interactive.style() + style,
        script=script,
        charts=interactive.bundle(),
        keys={name: key(run.color_slot(name), name) for name in run.names},
        facts=facts(run),
        verdict=verdict(run),
        missing=run.missing + run.left_out,
        cards=cards(run),
        first_figure=first_figure(run) or "",
        caveat=main_caveat(run),
        limits=any(section.anchor == "limits" for section in sections),
        explanation=explanation(run),
        done=what_was_done(run),
        sections=sections,
    )
    return str(page)


def first_figure(run: Run) -> Markup | None:
    """Return the figure of the first screen: scores on tasks or, without any, losses on held-out text."""
    return tasks_figure(run) or loss_figure(run)


def write_files(run: Run, found: Collected, folder: Path) -> None:
    """Replace `folder` by files for use elsewhere.

    NAME.png, NAME.svg    each figure; NAME-OPTION of one with a switch
    NAME.json             its description in Vega-Lite
    NAME.csv              each table
    curves.csv            every logged step of every phase
    numbers.json          everything that the tables show, unrounded
    """
    with atomic_folder(folder) as temporary:
        for item in found:
            if isinstance(item, Table):
                (temporary / f"{item.name}.csv").write_text(csv_text(item), encoding="utf-8")
            else:
                item.save(temporary)
        (temporary / "curves.csv").write_text(csv_lines(curve_rows(run)), encoding="utf-8")
        write_json(temporary / "numbers.json", numbers(run))


def curve_rows(run: Run) -> list[list[Value]]:
    """Return a head, and a row for each logged step."""
    names = [field.name for field in fields(Curve)]
    rows: list[list[Value]] = [["phase", *names]]
    for phase in run.phases.values():
        columns = [getattr(phase.curve, name).tolist() for name in names] if phase.curve else []
        rows += [[phase.id, *values] for values in zip(*columns, strict=True)]
    return rows

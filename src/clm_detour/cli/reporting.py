"""Verbs of the `clm-detour` command that show the results of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from clm_detour.utils.errors import UserError

RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not, e.g. runs/quickstart.")
]


def report(run: RunFolder) -> None:
    """Write the page of a run again: RUN/report.html, figures and numbers in RUN/report, model cards."""
    from clm_detour.report.card import write_cards
    from clm_detour.report.page import write_page

    write_cards(run)
    typer.echo(f"Open {write_page(run)}")


def push(
    run: RunFolder,
    arm: Annotated[str, typer.Argument(help="Arm whose model is uploaded.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME on the Hub.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Upload; without it, only show what would be uploaded.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public, not private.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option("--license", help="License on the card, e.g. apache-2.0.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Language on the card, e.g. en; may be repeated.")
    ] = None,
) -> None:
    """Show the model of an arm with its card, and upload it to the Hub with --yes. HF_TOKEN must be set."""
    from clm_detour.report.push import plan_upload, upload
    from clm_detour.utils.progress import console

    planned = plan_upload(run, arm, repo_id, {"license": licence, "language": language or None})
    for name, size in planned.files.items():
        typer.echo(f"{size:>15,}  {name}")
    typer.echo(f"{sum(planned.files.values()):>15,}  bytes in all, from {planned.folder} to {repo_id}\n")
    typer.echo(str(planned.card))
    if yes:
        console.print(f"Uploaded to {upload(planned, public)}", soft_wrap=True)
    else:
        console.print("Nothing was uploaded; add --yes to do it.")


def arms(run: RunFolder) -> None:
    """Compare all arms of a run, and what their phases froze, in one table (also RUN/report/arms.csv)."""
    from clm_detour.figures.renderers import rich_table
    from clm_detour.report.load import load_run
    from clm_detour.report.sections.arms import arm_table, reference_arm
    from clm_detour.utils.progress import console

    loaded = load_run(run)
    if not loaded.arms:
        raise UserError(f"{run} has no record of its arms: it has neither config.yaml nor arms.json.")
    caption = f"In brackets: the difference from {reference_arm(loaded)}"
    console.print(rich_table(replace(arm_table(loaded), caption=caption)))


VERBS = (report, push, arms)

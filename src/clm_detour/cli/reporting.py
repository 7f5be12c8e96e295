"""The verbs of the `clm-detour` command that show what came out of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from clm_detour.utils.errors import UserError


def report(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, finished or not, e.g. runs/quickstart.")
    ],
) -> None:
    """Write a run's page anew: RUN/report.html, and its figures and numbers as files in RUN/report, the models' cards."""
    from clm_detour.report.card import write_cards
    from clm_detour.report.page import write_page

    write_cards(run_dir)
    typer.echo(f"Open {write_page(run_dir)}")


def push(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    arm: Annotated[str, typer.Argument(help="Which arm's model.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME on the hub.")],
    yes: Annotated[bool, typer.Option("--yes", help="Upload; without it only show what would be.")] = False,
    public: Annotated[bool, typer.Option("--public", help="A new repository is private without it.")] = False,
    licence: Annotated[str | None, typer.Option("--license", help="For the card, e.g. apache-2.0.")] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="For the card, e.g. en; may be repeated.")
    ] = None,
) -> None:
    """Upload an arm's model with its card to the hub: shows files and card first; HF_TOKEN must be in the environment."""
    from clm_detour.report.push import plan_upload, upload
    from clm_detour.utils.progress import console

    planned = plan_upload(run_dir, arm, repo_id, {"license": licence, "language": language or None})
    for name, size in planned.files.items():
        typer.echo(f"{size:>15,}  {name}")
    typer.echo(f"{sum(planned.files.values()):>15,}  bytes in all, from {planned.folder} to {repo_id}\n")
    typer.echo(str(planned.card))
    if yes:
        console.print(f"Uploaded to {upload(planned, public)}", soft_wrap=True)
    else:
        console.print("Nothing was uploaded; add --yes to do it.")


def arms(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]) -> None:
    """What every arm of a run came to, in one table, with what its phases froze: it stands on the page and in RUN/report/arms.csv too."""
    from clm_detour.figures.renderers import rich_table
    from clm_detour.report.load import load_run
    from clm_detour.report.sections.arms import arm_table, reference_arm
    from clm_detour.utils.progress import console

    loaded = load_run(run)
    if not loaded.arms:
        raise UserError(f"{run} says nothing of its arms: it has neither config.yaml nor arms.json.")
    caption = f"In brackets: the difference from {reference_arm(loaded)}"
    console.print(rich_table(replace(arm_table(loaded), caption=caption)))


VERBS = (report, push, arms)

"""The verb of the `clm-detour` command that tries the claims of a ledger."""

from __future__ import annotations

from typing import Annotated

import typer

from clm_detour.cli import Overrides


def reproduce(
    ledger: Annotated[str, typer.Argument(metavar="LEDGER", help="A file, or a name like ledgers/paper.")],
    overrides: Overrides,
    scale: Annotated[
        str | None, typer.Option(help="Scale of the ledger; default: the first, e.g. mini.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Try this claim only; may be repeated.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs that are missing, and do nothing.")
    ] = False,
) -> None:
    """Try the claims of a ledger: run what is missing, and call each supported, refuted or undecided."""
    from rich.console import Console

    from clm_detour.figures.renderers import rich_table
    from clm_detour.ledger.command import chosen_claims, missing_runs, run_table
    from clm_detour.ledger.command import reproduce as try_claims
    from clm_detour.ledger.load import load_ledger
    from clm_detour.ledger.page import notes, terminal_table

    loaded = load_ledger(ledger, scale)
    console = Console(highlight=False, markup=False, emoji=False)  # standard output, since it is a result
    if dry_run:
        runs = missing_runs(loaded, only or (), overrides)
        console.print(rich_table(run_table(runs)) if runs else "All runs were done before; none is missing.")
        return
    result, folder = try_claims(loaded, only or (), overrides)
    console.print(terminal_table(result, chosen_claims(loaded, only or ())))
    for note in notes(result):
        console.print(note)
    console.print(f"Wrote {folder}/ledger.json and {folder}/ledger.html", soft_wrap=True)


VERBS = (reproduce,)

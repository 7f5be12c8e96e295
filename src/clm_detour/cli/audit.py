"""The verb of the `clm-detour` command that measures what models remember."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clm_detour.cli import Overrides
from clm_detour.utils.errors import UserError

if TYPE_CHECKING:
    import rich.table

    from clm_detour.figures.table import Table
    from clm_detour.recipe.recipe import Recipe


def audit(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a finished run, or its recipe.")],
    overrides: Overrides,
    rows: Annotated[int, typer.Option(min=2, help="Texts that were read, and as many held-out ones.")] = 1000,
    tokens: Annotated[int, typer.Option(min=8, help="Tokens of a text; longer rows are cut.")] = 128,
    alternatives: Annotated[
        int, typer.Option(min=1, max=100_000, help="Other secrets among which that of a canary is ranked.")
    ] = 1023,
    arm: Annotated[list[str] | None, typer.Option(help="Arm to measure; repeatable; default: all.")] = None,
) -> None:
    """Measure what models remember of their training data: secrets of canaries, and membership of texts."""
    from clm_detour.audit.command import audit_run
    from clm_detour.audit.tables import exposure_table, membership_table, name_of
    from clm_detour.report.card import write_cards
    from clm_detour.report.page import write_page
    from clm_detour.utils.progress import console, warn

    recipe = recipe_of(run, overrides)
    record = audit_run(recipe, rows, tokens, alternatives, arm or [])
    for make in (exposure_table, membership_table):
        if table := make(record, partial(name_of, record), narrow=True):
            console.print(plain_table(table), *table.notes, sep="\n")
    for note in record.notes:
        warn(note)
    write_cards(recipe.folder.root)
    page = write_page(recipe.folder.root)
    console.print(f"Wrote {recipe.folder.audit}, {page} and the model cards", soft_wrap=True)


def plain_table(table: Table) -> rich.table.Table:
    """Return a table without lines, so that more columns fit; long names of models and phases are folded."""
    from clm_detour.figures.renderers import rich_table

    made = rich_table(table)
    made.box, made.pad_edge, made.padding = None, False, (0, 1, 0, 0)
    for place, column in enumerate(made.columns):
        column.overflow, column.no_wrap = "fold", place > 1
    return made


def recipe_of(run: str, overrides: list[str]) -> Recipe:
    """Return the recipe of a run's folder, which may have been moved, or the recipe of this name.

    Raises:
        UserError: If the folder has no recipe, or the recipe is wrong.
    """
    from clm_detour.config import load_config
    from clm_detour.config.shipped import SUFFIX, remedy, shipped_configs
    from clm_detour.recipe.recipe import Recipe

    if not Path(run).is_dir():
        if not Path(run).exists() and run.removesuffix(SUFFIX) not in shipped_configs():
            raise UserError(f"There is neither a run nor a recipe {run}{remedy(run)}")
        return Recipe(load_config(run, overrides))
    path = Path(run) / "config.yaml"
    if not path.is_file():
        raise UserError(f"{run} holds no config.yaml; give the run_dir of a recipe, or the recipe.")
    there = load_config(path)
    moved = [f"run_dir={run}"]
    if Path(there.data.dir) == Path(there.run_dir, "data"):
        moved.append(f"data.dir={run}/data")
    return Recipe(load_config(path, [*moved, *overrides]))


VERBS = (audit,)

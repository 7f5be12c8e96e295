"""The list of `clm-detour configs`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table

from clm_detour.config.shipped import opening, shipped_files

# Start of the names of a group -> its heading. A config belongs to the last group that fits.
GROUPS = {
    "": "Recipes (clm-detour run NAME)",
    "paper/": "Runs of the paper (clm-detour run NAME)",
    "paper/ablations/": "Ablations of the paper (clm-detour run NAME)",
    "paper/other-bases/": "The recipe of the paper on other models (clm-detour run NAME)",
    "eval/": "Evaluations (clm-detour evaluate NAME)",
    "ledgers/": "Ledgers of claims (clm-detour reproduce NAME)",
    "base/": "Parts that a recipe can extend (extends: [NAME, NAME])",
    "cloud/": "Files for other programs (clm-detour configs NAME > FILE)",
}


def print_configs() -> None:
    """Print the shipped configs in groups, each with the first sentence of its comment."""
    console = Console(highlight=False, markup=False, emoji=False)  # standard output, since it is a result
    files = shipped_files()
    for start, heading in GROUPS.items():
        table = Table(Column(no_wrap=True), Column(), box=None, show_header=False, padding=(0, 2, 0, 2))
        for name, file in files.items():
            if group_of(name) == start:
                table.add_row(name, opening(file))
        console.print(heading, style="bold")
        console.print(table)
    console.print("clm-detour configs NAME prints one, to copy it into a file of your own.")


def group_of(name: str) -> str:
    """Return the start of the names of a config's group."""
    return [start for start in GROUPS if name.startswith(start)][-1]

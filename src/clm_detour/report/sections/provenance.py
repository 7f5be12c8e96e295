"""With which versions, on which machine, from which recipe."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from clm_detour.report import wording
from clm_detour.report.markup import Section, join
from clm_detour.report.records import Run
from clm_detour.report.tables import Row, table

NAMES = {"clm_detour": "clm-detour", "memory_gib": "memory, GiB"}


def provenance_section(run: Run) -> Section | None:
    """Environment and recipe."""
    environment = environment_table(run.environment) if run.environment else None
    recipe = recipe_box(run.config_text) if run.config_text else None
    body = join(environment, recipe)
    return Section("provenance", "Environment and recipe", body) if body else None


def environment_table(environment: dict[str, Any]) -> Markup:
    """Whatever the record names, in its order."""
    long = Markup('<span class="long">{}</span>')
    rows = [Row([NAMES.get(name, name), long.format(value(entry))]) for name, entry in environment.items()]
    return table("Environment", ["What", "Value"], rows, left={1})


def value(entry: Any) -> str:
    """A value as words."""
    if entry is None or entry == []:
        return wording.ABSENT
    if isinstance(entry, list):
        return ", ".join(str(part) for part in entry)
    return f"{entry:g}" if isinstance(entry, float) else str(entry)


def recipe_box(text: str) -> Markup:
    """The resolved config, folded away."""
    opening = "<details><summary>The recipe as it ran (config.yaml)</summary>"
    box = '<pre tabindex="0">{}</pre></details>'
    return Markup(opening + box).format(text)

"""The section on what weakens the comparison."""

from __future__ import annotations

from markupsafe import Markup

from clm_detour.report.caveats import caveats
from clm_detour.report.markup import Section
from clm_detour.report.run import Run


def limits_section(run: Run) -> Section | None:
    """Return the caveats as a list."""
    found = caveats(run)
    items = Markup("\n").join(Markup("<li>{}</li>").format(sentence) for sentence in found)
    return Section("limits", "Limits", Markup("<ul>\n{}\n</ul>").format(items)) if found else None

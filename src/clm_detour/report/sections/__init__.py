"""One file a section: a function from a `Run` to a `Section`, or None where there is nothing to say.

A new section is a new file here and its name in `SECTIONS`; order of display.
"""

from __future__ import annotations

from collections.abc import Callable

from clm_detour.report.markup import Section
from clm_detour.report.records import Run
from clm_detour.report.sections.arms import arms_section
from clm_detour.report.sections.costs import costs_section
from clm_detour.report.sections.data import data_section
from clm_detour.report.sections.held_out import held_out_section
from clm_detour.report.sections.masks import masks_section
from clm_detour.report.sections.network import network_section
from clm_detour.report.sections.process import process_section
from clm_detour.report.sections.provenance import provenance_section
from clm_detour.report.sections.tasks import tasks_section
from clm_detour.report.sections.training import training_section

SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    held_out_section,
    tasks_section,
    arms_section,
    network_section,
    training_section,
    masks_section,
    costs_section,
    process_section,
    data_section,
    provenance_section,
)

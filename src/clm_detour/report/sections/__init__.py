"""The sections of the page: functions that take a `Run` and return a `Section`.

They return None if there is nothing to show. A new section is a function in this package and its name in
`SECTIONS`, which is the order of display.
"""

from __future__ import annotations

from collections.abc import Callable

from clm_detour.report.markup import Section
from clm_detour.report.run import Run
from clm_detour.report.sections.arms import arms_section
from clm_detour.report.sections.costs import costs_section
from clm_detour.report.sections.data import data_section
from clm_detour.report.sections.general_text import general_text_section
from clm_detour.report.sections.held_out import held_out_section
from clm_detour.report.sections.limits import limits_section
from clm_detour.report.sections.masks import masks_section
from clm_detour.report.sections.memory import memory_section
from clm_detour.report.sections.needles import needles_section
from clm_detour.report.sections.network import network_section
from clm_detour.report.sections.process import process_section, provenance_section
from clm_detour.report.sections.tasks import tasks_section
from clm_detour.report.sections.training import training_section

SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    tasks_section,
    held_out_section,
    general_text_section,
    training_section,
    network_section,
    needles_section,
    memory_section,
    limits_section,
    masks_section,
    arms_section,
    costs_section,
    process_section,
    data_section,
    provenance_section,
)

"""Speed and costs: tokens a second, share of the peak, hours, operations, energy."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from clm_detour.report import wording
from clm_detour.report.arms import colour_slot
from clm_detour.report.costs import cost_of
from clm_detour.report.curves import speed_figure
from clm_detour.report.markup import Section, figure, join, key, side_by_side
from clm_detour.report.records import Phase, PhaseEnd, Run
from clm_detour.report.tables import Cell, Row, Text, number, table
from clm_detour.utils.progress import human

Ended = list[tuple[Phase, PhaseEnd]]


def costs_section(run: Run) -> Section | None:
    """Only of phases that have ended; the curve also of the one under way."""
    ended = [(phase, phase.end) for phase in run.phases.values() if phase.end]
    moving = [phase for phase in run.phases.values() if phase.curve]
    if not ended:
        return None
    body = join(
        speed_table(ended),
        speed_panel(run, moving) if moving else None,
        phase_table(run, ended),
        arm_table(run) if run.arms else None,
    )
    return Section("costs", "Speed and costs", body)


def speed_table(ended: Ended) -> Markup:
    """How fast each phase ran."""
    head: list[Text] = ["Phase", "Tokens/s", "MFU", "Rows full", "Waited for data"]
    rows = [
        Row(
            [
                phase.id,
                number(speed(phase, end), human),
                *(number(median(phase, name), wording.percent) for name in ("mfu", "packing", "data_wait")),
            ]
        )
        for phase, end in ended
    ]
    note = (
        "Medians of the steps; tokens/s over all devices. MFU: share of the device's peak that the model's operations come to, "
        "known for some GPUs only."
    )
    return table("Speed", head, rows, note=note)


def speed(phase: Phase, end: PhaseEnd) -> float | None:
    """Tokens a second, where they are known."""
    values = phase.curve.tokens_per_second if phase.curve else np.array([])
    values = values[values > 0]
    if len(values):
        return float(np.median(values))
    return end.tokens / end.seconds if end.seconds > 0 else None


def median(phase: Phase, name: str) -> float | None:
    """Of a share, where it was logged at some steps."""
    values = getattr(phase.curve, name) if phase.curve else np.array([])
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def speed_panel(run: Run, phases: list[Phase]) -> Markup:
    """The curve."""
    label = "Tokens a second over tokens trained, a line a phase; the table has the medians."
    drawing = speed_figure(run, phases, "speed", label)
    return side_by_side(figure(drawing, "Tokens a second", "Averaged over neighbouring steps."))


def phase_table(run: Run, ended: Ended) -> Markup:
    """What each phase took."""
    rows = []
    for phase, end in ended:
        cost = cost_of(run, phase.id, end)
        rows.append(
            Row([phase.id, *amounts(cost.seconds, cost.gpu_hours, cost.operations, cost.energy), number(cost.utilisation, wording.percent)])
        )  # fmt: skip
    note = (
        "Operations: floating-point operations of training, counted from the model and its rows. Energy: the GPUs at full power for "
        "the whole time, an upper bound; known for some GPUs only."
    )
    return table("Costs", ["Phase", "Time", "GPU-hours", "Operations", "Energy", "Of peak"], rows, note=note)


def arm_table(run: Run) -> Markup | None:
    """What each arm took from its start; phases that arms share count in each."""
    rows = []
    for arm, ids in run.arms.items():
        costs = [cost_of(run, id, end) for id in ids if (end := run.phases[id].end)]
        if len(costs) == len(ids):
            sums = [
                total([getattr(cost, name) for cost in costs])
                for name in ("seconds", "gpu_hours", "operations", "energy")
            ]
            rows.append(Row([key(colour_slot(run, arm), arm), *amounts(*sums)]))
    if not rows:
        return None
    note = "From its start to its end; phases that arms share count in each."
    return table("Costs of the arms", ["Arm", "Time", "GPU-hours", "Operations", "Energy"], rows, note=note)


def total(values: list[float | None]) -> float | None:
    """The sum, if all are known."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None


def amounts(
    seconds: float | None, gpu_hours: float | None, operations: float | None, energy: float | None
) -> list[Cell]:
    """As cells."""
    return [
        number(seconds, wording.duration, "seconds"),
        number(gpu_hours, "{:,.2f}".format),
        number(operations, "{:.2e}".format),
        number(energy, f"{{:,.2f}}{wording.NARROW}kWh".format, "kWh"),
    ]

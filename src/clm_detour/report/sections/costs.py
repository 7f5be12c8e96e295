"""The section on speed and costs: tokens a second, hours, operations, energy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from clm_detour.figures import wording
from clm_detour.figures.table import Cell, Row, Text, number
from clm_detour.plan.hardware import DEVICES, known_device, peak_of
from clm_detour.records.phase import PhaseRecord
from clm_detour.report.curves import speed_chart
from clm_detour.report.markup import Section, figure, join, key, side_by_side, table
from clm_detour.report.run import Phase, Run
from clm_detour.utils.progress import human

JOULES = 3.6e6  # in a kWh

Ended = list[tuple[Phase, PhaseRecord]]


@dataclass(frozen=True)
class Cost:
    """The cost of a phase; None where it is not known.

    Args:
        gpu_hours: None on a CPU.
        operations: Floating-point operations of training, as `plan` counts them.
        energy: kWh of the GPU boards at full power, without the machines around them: an upper bound.
        utilisation: Share of the boards' peak that the operations came to.
    """

    seconds: float
    gpu_hours: float | None
    operations: float | None
    energy: float | None
    utilisation: float | None


def cost_of(run: Run, id: str, end: PhaseRecord) -> Cost:
    """Return the cost of a finished phase."""
    operations, device = run.operations.get(id), known_device(end.device)
    board_seconds = end.seconds * end.world_size
    if device is None:
        hours = board_seconds / 3600 if end.device != "cpu" else None
        return Cost(end.seconds, hours, operations, None, None)
    peak, watts = peak_of(end.device, end.precision), DEVICES[device].watts
    reached = operations / (board_seconds * peak) if operations and board_seconds and peak else None
    return Cost(end.seconds, board_seconds / 3600, operations, board_seconds * watts / JOULES, reached)


def costs_section(run: Run) -> Section | None:
    """Return tables of the phases that have ended, and a chart that has the phase under way, too."""
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
    """Return how fast each phase was."""
    head: list[Text] = ["Phase", "Tokens/s", "MFU", "Rows full", "Waited for data"]
    shares = ("mfu", "packing", "data_wait")
    rows = []
    for phase, end in ended:
        medians = [number(median(phase, name), wording.percent) for name in shares]
        rows.append(Row([phase.id, number(speed(phase, end), human), *medians]))
    note = (
        "Medians of the steps; tokens/s is over all devices. MFU (model FLOPs utilization) is the share of "
        "the device's peak that the model's operations come to; the peak is known for some GPUs only."
    )
    return table("Speed", head, rows, note=note)


def speed(phase: Phase, end: PhaseRecord) -> float | None:
    """Return tokens a second, where they are known."""
    values = phase.curve.tokens_per_second if phase.curve else np.array([])
    values = values[values > 0]
    if len(values):
        return float(np.median(values))
    return end.tokens / end.seconds if end.seconds > 0 else None


def median(phase: Phase, name: str) -> float | None:
    """Return the median of a share over the steps at which it was logged."""
    values = getattr(phase.curve, name) if phase.curve else np.array([])
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def speed_panel(run: Run, phases: list[Phase]) -> Markup:
    """Return a figure of tokens a second."""
    label = "Tokens a second over tokens trained, a line for each phase; the table has the medians."
    caption = "Averaged over neighboring steps."
    chart = speed_chart(run, phases)
    return side_by_side(figure("speed", chart, label, "Tokens a second", caption))


def phase_table(run: Run, ended: Ended) -> Markup:
    """Return what each phase took."""
    rows = []
    for phase, end in ended:
        cost = cost_of(run, phase.id, end)
        amounts = amount_cells(cost.seconds, cost.gpu_hours, cost.operations, cost.energy)
        rows.append(Row([phase.id, *amounts, number(cost.utilisation, wording.percent)]))
    note = (
        "Operations: floating-point operations of training, counted from the model and its rows. Energy: the "
        "GPUs at full power for the whole time, which is an upper bound; known for some GPUs only."
    )
    head: list[Text] = ["Phase", "Time", "GPU-hours", "Operations", "Energy", "Of peak"]
    return table("Costs", head, rows, note=note)


def arm_table(run: Run) -> Markup | None:
    """Return what each arm took from its start to its end."""
    rows = []
    for arm, ids in run.arms.items():
        costs = [cost_of(run, id, end) for id in ids if (end := run.phases[id].end)]
        if len(costs) == len(ids):
            names = ("seconds", "gpu_hours", "operations", "energy")
            sums = [total([getattr(cost, name) for cost in costs]) for name in names]
            rows.append(Row([key(run.color_slot(arm), arm), *amount_cells(*sums)]))
    if not rows:
        return None
    note = "From the start of an arm to its end. Phases that arms share count in each of them."
    return table("Costs of the arms", ["Arm", "Time", "GPU-hours", "Operations", "Energy"], rows, note=note)


def total(values: list[float | None]) -> float | None:
    """Return the sum, or None if a value is not known."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None


def amount_cells(
    seconds: float | None, gpu_hours: float | None, operations: float | None, energy: float | None
) -> list[Cell]:
    """Return the cells of time, GPU hours, operations and energy in kWh."""
    return [
        number(seconds, wording.duration, "seconds"),
        number(gpu_hours, "{:,.2f}".format),
        number(operations, "{:.2e}".format),
        number(energy, f"{{:,.2f}}{wording.NARROW}kWh".format, "kWh"),
    ]

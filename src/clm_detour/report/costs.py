"""What a phase took: time, operations, and, where the hardware is known, energy."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clm_detour.plan.hardware import DEVICES
from clm_detour.report.records import PhaseEnd, Run

JOULES = 3.6e6  # in a kWh


@dataclass(frozen=True)
class Cost:
    """Of one phase; None where it is not known.

    Args:
        gpu_hours: None on a CPU.
        operations: floating-point operations of training, as `plan` counts them.
        energy: kWh of the boards at full power, without the machines around them: an upper bound.
        utilisation: share of the boards' peak that the operations came to.
    """

    seconds: float
    gpu_hours: float | None
    operations: float | None
    energy: float | None
    utilisation: float | None


def cost_of(run: Run, id: str, end: PhaseEnd) -> Cost:
    """A finished phase's."""
    operations, device = run.operations.get(id), known_device(end.device)
    on_gpus = end.device != "cpu"
    if device is None:
        return Cost(
            end.seconds, end.seconds * end.world_size / 3600 if on_gpus else None, operations, None, None
        )
    peak, watts = DEVICES[device]
    board_seconds = end.seconds * end.world_size
    reached = operations / (board_seconds * peak) if operations and board_seconds else None
    return Cost(end.seconds, board_seconds / 3600, operations, board_seconds * watts / JOULES, reached)


def known_device(name: str) -> str | None:
    """'NVIDIA H100 80GB HBM3' -> 'H100'; the longest name that stands in it as whole words."""
    words = re.split(r"[\s-]+", name.upper())
    spans = {"".join(words[i : i + n]) for n in (1, 2) for i in range(len(words))}
    known = [device for device in DEVICES if device.upper().replace("-", "") in spans]
    return max(known, key=len, default=None)

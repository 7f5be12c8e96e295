"""Compare two runs of the same phase: losses, gradient norms, weights, their average, held-out loss.

Every run puts one row at a time through the network, so losses and gradients of rows are the same numbers in
every arrangement, and only the order of sums differs: by a few eps of fp32 a step. AdamW divides a gradient
by its size, which turns such a difference into a whole update where a gradient is nearly zero, and in bf16 a
weight that differs rounds otherwise. So the limits are not those of one sum; a missing row, a mean over the
wrong number of processes or a lost moment exceed them many times.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file

from clm_detour.records.phase import HeldOutStep, LoggedStep
from clm_detour.records.run_folder import PhaseFolder
from clm_detour.records.store import read_lines
from clm_detour.records.verify import Check
from clm_detour.run.verify.checks import Group

FIRST = 3  # steps whose losses and gradient norms are compared; later ones add up what came before
LIMITS = {  # relative, by precision
    "bf16": {"loss": 2e-3, "gradient norm": 2e-2, "weights": 2e-2, "average": 2e-2, "held-out loss": 2e-3},
    "fp32": {"loss": 1e-5, "gradient norm": 1e-4, "weights": 1e-3, "average": 1e-3, "held-out loss": 1e-4},
}  # fmt: skip


def compare(
    group: Group, label: str, found: PhaseFolder, expected: PhaseFolder, precision: str
) -> Iterator[Check]:
    """Yield a check for each kind of result."""
    limits = LIMITS[precision]
    ours, theirs = (list(read_lines(LoggedStep, folder.metrics))[:FIRST] for folder in (found, expected))
    losses = [(line.loss, other.loss) for line, other in zip(ours, theirs, strict=True)]
    norms = [(line.gradient_norm, other.gradient_norm) for line, other in zip(ours, theirs, strict=True)]
    yield group.at_most(f"{label}: loss", largest(losses), limits["loss"])
    yield group.at_most(f"{label}: gradient norm", largest(norms), limits["gradient norm"])
    yield weights(group, label, found, expected, precision)
    name, away = distance(found.ema / "model.safetensors", expected.ema / "model.safetensors")
    yield group.at_most(f"{label}: average", away, limits["average"], where=name)
    scores = [list(read_lines(HeldOutStep, folder.held_out)) for folder in (found, expected)]
    pairs = [(one.mlm.loss, other.mlm.loss) for one, other in zip(*scores, strict=True)]
    yield group.at_most(f"{label}: held-out loss", largest(pairs), limits["held-out loss"])


def weights(group: Group, label: str, found: PhaseFolder, expected: PhaseFolder, precision: str) -> Check:
    """Return the check of the weights at the end of the phase."""
    name, away = distance(found.model / "model.safetensors", expected.model / "model.safetensors")
    return group.at_most(f"{label}: weights", away, LIMITS[precision]["weights"], where=name)


def largest(pairs: list[tuple[float, float]]) -> float:
    """Return the largest relative difference; NaN if there are no pairs, or one is NaN."""
    differences = [abs(one - other) / abs(other) for one, other in pairs]
    return max(differences, key=lambda value: (value != value, value), default=float("nan"))


def distance(found: Path, expected: Path) -> tuple[str, float]:
    """Return the tensor that differs most, and the length of the difference relative to its own."""
    ours, theirs = load_file(found), load_file(expected)
    assert ours.keys() == theirs.keys()
    away = {
        name: ((ours[name] - tensor).norm() / tensor.norm().clamp_min(1e-12)).item()
        for name, tensor in theirs.items()
    }
    name = max(away, key=lambda name: (away[name] != away[name], away[name]))
    return name, away[name]

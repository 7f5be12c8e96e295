"""The statistics that a claim can name: functions of the records of a finished run.

A statistic has one value for each run, and thus for each seed. A value that was not measured is None.
Divergences are 1 - CKA by the debiased estimator of `analyze.cka`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from clm_detour.config.units import layer_thirds
from clm_detour.records.analysis import NetworkComparison
from clm_detour.records.audit import AuditRecord
from clm_detour.records.evaluation import Summary
from clm_detour.records.needles import NeedlesRecord
from clm_detour.records.run import HeldOutRecord
from clm_detour.records.run_folder import RunFolder
from clm_detour.records.store import read_or_none

T = TypeVar("T")
ESTIMATOR = "debiased"
PAIR, WITH_CONTROL = ("detour", "twin"), ("detour", "twin", "control")


@dataclass(frozen=True)
class Statistic:
    """A statistic of an arm, or of the arms `arms` of a run.

    Args:
        title: The statistic in words.
        better: Which direction is better, or "" if neither is.
        value: Returns the value for a run and an arm of it, or None if it was not measured.
        arms: The arms that the run must have; empty for a statistic of any arm.
        needs: Key of the recipe without which nothing is measured; empty if there is none.
    """

    title: str
    unit: str
    better: Literal["higher", "lower", ""]
    value: Callable[[RunFolder, str], float | None]
    arms: tuple[str, ...] = ()
    needs: str = ""

    def read(self, folder: RunFolder, arm: str) -> float | None:
        """Return the value, or None if it was not measured or is not finite."""
        found = self.value(folder, arm)
        return found if found is not None and math.isfinite(found) else None


def task_score(folder: RunFolder, arm: str) -> float | None:
    """Return the mean score over tasks, in percent; None if a model of the run lacks one of them.

    Means over different tasks cannot be compared, neither between runs nor over seeds.
    """
    summary = read_or_none(Summary, folder.tasks / "summary.json")
    everything = next((group for group in summary.groups if group.name == "all"), None) if summary else None
    if everything is None or len(everything.tasks) < everything.of:
        return None
    found = everything.averages.get(arm)
    return found.mean if found else None


def held_out_loss(folder: RunFolder, arm: str) -> float | None:
    """Return the masked loss on held-out text of the domain, in nats."""
    found = read_or_none(HeldOutRecord, folder.held_out)
    score = found.totals.get(arm) if found else None
    return score.loss if score else None


def general_loss(folder: RunFolder, arm: str) -> float | None:
    """Return the masked loss on held-out general text, in nats."""
    found = read_or_none(HeldOutRecord, folder.held_out)
    score = found.general.totals.get(arm) if found and found.general else None
    return score.loss if score else None


def divergence(folder: RunFolder, arm: str) -> float | None:
    """Return the divergence of detour and twin, a mean over layers, from 0 to 1."""
    found = read_or_none(NetworkComparison, folder.comparison)
    variant = found.variant("detour_twin", ESTIMATOR) if found else None
    return variant.model.divergence if variant else None


def noise_ratio(folder: RunFolder, arm: str) -> float | None:
    """Return the divergence of detour and twin over that of two twins."""
    found = read_or_none(NetworkComparison, folder.comparison)
    return found.ratio[ESTIMATOR].model if found and found.ratio and ESTIMATOR in found.ratio else None


def low_noise_ratio(folder: RunFolder, arm: str) -> float | None:
    """Return `noise_ratio` over the low third of the layers."""
    return third_ratio(folder, "low")


def low_against_middle(folder: RunFolder, arm: str) -> float | None:
    """Return `noise_ratio` over the low third of the layers minus that over the middle third."""
    low, middle = third_ratio(folder, "low"), third_ratio(folder, "mid")
    return None if low is None or middle is None else low - middle


def third_ratio(folder: RunFolder, third: str) -> float | None:
    """Return the divergence of detour and twin over that of two twins, both means over a third of the layers.

    Args:
        third: low, mid or high.
    """
    found = read_or_none(NetworkComparison, folder.comparison)
    if found is None:
        return None
    curves = [found.curve(name, ESTIMATOR) for name in ("detour_twin", "control")]
    inner = [curve.divergence[1:-1] for curve in curves if curve]  # without embeddings and final norm
    if len(inner) < 2 or third not in (thirds := layer_thirds(len(inner[0]))):
        return None
    first, last = thirds[third]
    above, below = (sum(layers[first : last + 1]) for layers in inner)
    return above / below if below > 0 else None


def retention(folder: RunFolder, arm: str) -> float | None:
    """Return the divergence of detour and twin after the decay over that before it."""
    found = read_or_none(NetworkComparison, folder.comparison)
    known = found.retention if found else None
    return known[ESTIMATOR].model if known and ESTIMATOR in known else None


def needles(folder: RunFolder, arm: str) -> float | None:
    """Return how often the model finds a needle in the longest texts, in percent, a mean over positions."""
    found = read_or_none(NeedlesRecord, folder.analysis / "needles.json")
    path = next((path for path in found.models if Path(path).name == arm), None) if found else None
    if found is None or path is None:
        return None
    longest = found.lengths.index(max(found.lengths))
    shares = found.accuracy[path][longest]
    return 100 * sum(shares) / len(shares)


def exposure(folder: RunFolder, arm: str) -> float | None:
    """Return the mean exposure of canaries with 16 or more copies, in bits, by the mask that gives more."""
    found = read_or_none(AuditRecord, folder.audit)
    return found.exposure(arm) if found else None


def membership(folder: RunFolder, arm: str) -> float | None:
    """Return 100 x the AUC of membership inference against the base, by the mask that gives more."""
    found = read_or_none(AuditRecord, folder.audit)
    return found.membership_auc(arm) if found else None


STATISTICS: dict[str, Statistic] = {
    "task_score": Statistic("mean score over tasks", "points", "higher", task_score, needs="evaluate.tasks"),
    "held_out_loss": Statistic("masked loss on held-out text", "nats", "lower", held_out_loss),
    "general_loss": Statistic(
        "masked loss on general text", "nats", "lower", general_loss, needs="evaluate.general"
    ),
    "divergence": Statistic("divergence of detour and twin", "1 - CKA", "", divergence, PAIR),
    "noise_ratio": Statistic("divergence over that of two twins", "times", "", noise_ratio, WITH_CONTROL),
    "low_noise_ratio": Statistic(
        "divergence over that of two twins, low layers", "times", "", low_noise_ratio, WITH_CONTROL
    ),
    "low_against_middle": Statistic(
        "divergence over that of two twins, low minus middle layers",
        "times",
        "",
        low_against_middle,
        WITH_CONTROL,
    ),
    "retention": Statistic("divergence after the decay over that before", "times", "", retention, PAIR),
    "needles": Statistic("needles found in the longest texts", "points", "higher", needles),
    "exposure": Statistic(
        "exposure of canaries with 16 or more copies", "bits", "lower", exposure, needs="data.canaries"
    ),
    "membership": Statistic("AUC of membership inference", "points", "lower", membership),
}

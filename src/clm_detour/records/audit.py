"""The records of an audit: `analysis/audit.json`, and `analysis/audit/MODEL.json` with what was measured.

They hold numbers only: neither a secret nor any other text of the data.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Annotated, Literal

from clm_detour.records.store import Interval, Number, OptionalInterval, left_out_if_none

Mask = Literal["bidirectional", "causal"]
MASKS: tuple[Mask, ...] = ("bidirectional", "causal")
NONE, BASE, TWIN = "none", "base", "twin"  # reference models
OFTEN = 16  # copies from which the statistic of a ledger counts


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """The settings of an audit.

    Args:
        rows: Members, and non-members, at most.
        tokens: Tokens of a row that are scored, from its start.
        alternatives: Other secrets among which a canary's is ranked.
        mask_rate: Share of the tokens that one pass under the bidirectional mask predicts.
        passes: Number of these passes, none of which predicts a token of another.
        precision: Precision of the computation.
        seed: Seed of the rows, the masks and the alternatives.
    """

    rows: int
    tokens: int
    alternatives: int
    mask_rate: float
    passes: int
    precision: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class AuditedCanaries:
    """The canaries of a run.

    Args:
        source: The source that they joined.
        copies: Number of copies of each canary in the data; 0 for those that were left out.
        chance: Exposure that a model has on average which never read a canary.
    """

    source: str
    copies: list[int]
    chance: float


@dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """`analysis/audit/MODEL.json`: what was measured of one model, from which the results are computed.

    Args:
        key: Hash of everything that the numbers depend on.
        losses: Mask -> mean loss of each row, in nats per predicted token.
        ranks: Mask -> rank of the secret of each canary, from 1 on; equal ones count half.
        exposures: Mask -> exposure of each canary, in bits.
    """

    key: str
    losses: dict[Mask, list[Number]]
    ranks: dict[Mask, list[Number]]
    exposures: dict[Mask, list[Number]]
    format: Literal[1] = 1


@dataclass(frozen=True, kw_only=True)
class Membership:
    """The quality with which the score of a row tells rows that were read from rows that were not.

    Args:
        auc: Probability that a member has a higher score than a non-member, 0.5 by chance.
        interval: Its 95 % interval (DeLong); None where the variance is estimated as 0.
        tpr: Share of the members that are found where one in a thousand non-members is taken for a member;
            None if there are too few non-members to tell.
        tpr_interval: Its 95 % interval (Clopper-Pearson).
    """

    auc: Number
    interval: OptionalInterval
    tpr: float | None = None
    tpr_interval: OptionalInterval = None


@dataclass(frozen=True, kw_only=True)
class MaskResult:
    """The results of one model under one mask.

    Args:
        ranks, exposures: Of each canary; empty without canaries.
        member_loss, non_member_loss: Mean loss of the rows of each kind, in nats; None without such rows.
        membership: Reference model -> result. The score of a row is the reference's loss minus the model's,
            or for `none` the negative loss.
    """

    ranks: list[Number] = field(default_factory=list)
    exposures: list[Number] = field(default_factory=list)
    member_loss: float | None = None
    non_member_loss: float | None = None
    membership: dict[str, Membership] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AuditedModel:
    """A model: the base, or the end of a phase.

    Args:
        id: Id of the phase, or `base` for `model.base`.
        arms: Arms that have the phase.
        last_of: Arms whose last phase it is.
        reference: Id of the model that serves as `twin`.
        copies_read: How many copies of each canary its phases read; empty without canaries.
        members, non_members: Source -> number of rows. Those of the base are the ones of the first arm,
            which it did not read.
    """

    id: str
    arms: list[str]
    last_of: list[str] = field(default_factory=list)
    reference: Annotated[str | None, left_out_if_none] = None
    copies_read: list[int] = field(default_factory=list)
    members: dict[str, int] = field(default_factory=dict)
    non_members: dict[str, int] = field(default_factory=dict)
    masks: dict[Mask, MaskResult]

    @property
    def phase(self) -> str:
        """The name of the phase."""
        return self.id.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Exposure:
    """The exposure of the canaries with one number of copies.

    Args:
        read: Mean number of copies that the phases of the model read.
        mean, std: Exposure in bits; `std` is None for a single canary.
        interval: 95 % interval of the mean (Student's t); None for a single canary.
    """

    copies: int
    read: float
    canaries: int
    mean: float
    std: float | None
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """`analysis/audit.json`: what the models of a run remember of the data.

    Args:
        canaries: None if the data was prepared without any.
        base: Id of the model from which the arms start, if it was measured.
        models: The base and the ends of phases, each after its parent.
        notes: What was not measured, and why.
    """

    settings: AuditSettings
    canaries: AuditedCanaries | None
    base: str | None
    models: list[AuditedModel]
    notes: list[str] = field(default_factory=list)
    format: Literal[1] = 1

    @property
    def most(self) -> float:
        """The highest exposure that can be measured, in bits."""
        return math.log2(1 + self.settings.alternatives)

    def final(self, arm: str) -> AuditedModel | None:
        """Return the model at the end of an arm, or None if it was not measured."""
        return next((model for model in self.models if arm in model.last_of), None)

    def before_last(self, arm: str) -> AuditedModel | None:
        """Return the model before the last phase of an arm, or None if there is none but the base."""
        final = self.final(arm)
        parent = final.id.rpartition(".")[0] if final else ""
        found = next((model for model in self.models if model.id == parent), None)
        return None if found is None or found.id == self.base else found

    def exposures(self, model: AuditedModel, mask: Mask) -> list[Exposure]:
        """Return the exposure of a model by number of copies, ascending; empty without canaries."""
        if self.canaries is None:
            return []
        copies, found = self.canaries.copies, model.masks[mask].exposures
        groups = {number: [i for i, each in enumerate(copies) if each == number] for number in copies}
        return [
            summarized(number, [model.copies_read[i] for i in group], [found[i] for i in group], self.most)
            for number, group in sorted(groups.items())
        ]

    def exposure(self, arm: str) -> float | None:
        """Return the mean exposure of an arm's model over canaries with 16 or more copies, in bits.

        It is that of the mask that gives more; None if there are no such canaries, or no such model.
        """
        model = self.final(arm)
        if model is None or self.canaries is None:
            return None
        often = [i for i, copies in enumerate(self.canaries.copies) if copies >= OFTEN]
        means = [statistics.fmean(mask.exposures[i] for i in often) for mask in model.masks.values() if often]
        return max(filter(math.isfinite, means), default=None)

    def membership(self, arm: str) -> Membership | None:
        """Return how well an arm's model tells rows that were read, with the base as the reference.

        It is that of the mask that gives more; None if it was not measured.
        """
        model = self.final(arm)
        masks = model.masks.values() if model else ()
        found = [mask.membership[BASE] for mask in masks if BASE in mask.membership]
        return max(
            (each for each in found if math.isfinite(each.auc)), key=lambda each: each.auc, default=None
        )

    def membership_auc(self, arm: str) -> float | None:
        """Return 100 x the AUC of `membership`, or None if it was not measured."""
        found = self.membership(arm)
        return 100 * found.auc if found else None


def summarized(copies: int, read: list[int], exposures: list[float], most: float) -> Exposure:
    """Return mean and spread of the exposures of canaries with one number of copies.

    Args:
        most: The highest exposure that can be measured.
    """
    from scipy.stats import t

    count, mean = len(exposures), statistics.fmean(exposures)
    if count < 2 or not math.isfinite(mean):
        return Exposure(copies, statistics.fmean(read), count, mean, None, None)
    std = statistics.stdev(exposures)
    half = float(t.ppf(0.975, count - 1)) * std / count**0.5
    interval = (max(mean - half, 0.0), min(mean + half, most))
    return Exposure(copies, statistics.fmean(read), count, mean, std, interval)

"""The records of a ledger: `ledger.json`, with the verdicts, and `ledger.started.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from clm_detour.records.store import OptionalInterval


@dataclass(frozen=True)
class StartedLedger:
    """`ledger.started.json`: the ledger as it was before the first run.

    Args:
        hash: Checksum of `content`.
        content: Arms, claims and the scale.
    """

    hash: str
    date: str
    content: dict[str, Any]
    format: Literal[1] = 1


@dataclass(frozen=True, kw_only=True)
class SeedEffect:
    """A claim in the runs of one seed.

    Args:
        values: Arm -> value of the statistic; None where it was not measured.
        effect: The sum of the values of `of` minus that of `against`; None if one of them is missing.
    """

    values: dict[str, float | None]
    effect: float | None


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """A claim and its verdict.

    Args:
        statistic: Name of the statistic; `title` is the statistic in words.
        better: Which direction of the statistic is better: higher, lower or neither ("").
        of: Arms of which the statistic is read.
        against: Arms whose statistic is subtracted, or the number that is.
        reason: Why this is the verdict, in a sentence.
        seeds: Seed -> its effect.
        effect: Mean over the seeds that have an effect; None without one.
        interval: 95 % t interval of the mean; None with one seed, or if all seeds have the same effect.
        deviation: Sample standard deviation over seeds; None with one seed.
        more_seeds: About how many more seeds would decide an undecided claim at 80 % power, if effect and
            deviation are those seen; None if it is decided or cannot be counted.
    """

    claim: str
    source: str
    statistic: str
    title: str
    unit: str
    better: str
    of: list[str]
    against: list[str] | float
    expect: str
    smallest: float
    equivalence: float
    refuted_if: str
    verdict: Literal["supported", "refuted", "undecided"]
    reason: str
    seeds: dict[str, SeedEffect]
    effect: float | None
    interval: OptionalInterval
    deviation: float | None
    more_seeds: int | None

    @property
    def words(self) -> str:
        """The verdict, and what an undecided claim is missing."""
        if self.verdict != "undecided":
            return self.verdict
        if self.more_seeds is not None:
            return f"undecided (about {self.more_seeds} more seed{'' if self.more_seeds == 1 else 's'})"
        if self.effect is None:
            return "undecided (not measured)"
        return "undecided (one seed)" if self.deviation is None else "undecided"


@dataclass(frozen=True, kw_only=True)
class RunOrigin:
    """A run from which values were read.

    Args:
        variant: Variant of the recipe; empty for the recipe itself.
        arms: The arms that the run has.
        config: Checksum of its `config.yaml` without the folders of the machine.
        data: Source -> split -> fingerprints of documents and rows.
        environment: Versions, hardware and commit, as far as they are known.
    """

    folder: str
    variant: str
    seed: int
    arms: list[str]
    config: str | None
    data: dict[str, dict[str, dict[str, str]]]
    environment: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class LedgerRecord:
    """`ledger.json`: the verdicts on the claims of a ledger at one scale.

    Args:
        hash: Checksum of the ledger at this scale.
        hash_at_start: The same before the first run.
        changes: What was changed in between, a sentence for each.
        not_tried: Claim -> why this scale does not try it.
        commit: That of the program that wrote this file, where it is known.
        versions: Those of the program and of the libraries that it uses.
    """

    name: str
    scale: str
    hash: str
    hash_at_start: str
    changes: list[str] = field(default_factory=list)
    date: str
    claims: dict[str, ClaimResult]
    not_tried: dict[str, str]
    runs: list[RunOrigin]
    commit: str | None
    versions: dict[str, str | None]
    format: Literal[1] = 1

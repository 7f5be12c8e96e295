"""Draw the result of a ledger: the effect of each claim, in units of its smallest effect of interest."""

from __future__ import annotations

from typing import cast

from clm_detour.figures.forest import Effect, ForestPlot
from clm_detour.figures.renderers import csv_lines
from clm_detour.figures.table import Value
from clm_detour.figures.wording import ABSENT, signed
from clm_detour.ledger.schema import Expectation
from clm_detour.ledger.verdict import Rule
from clm_detour.records.ledger import ClaimResult, LedgerRecord

TITLE = "effect / smallest effect of interest (right: as expected)"
KEY = (
    "Shaded: counts as none. Dashed line: smallest effect.",
    "Line: 95 % interval, with the mean. Small dots: seeds.",
)
COLUMNS = (
    "name", "claim", "statistic", "unit", "expect", "smallest", "equivalence",
    "verdict", "more seeds", "effect", "low", "high", "deviation",
)  # fmt: skip


def readable(name: str) -> str:
    """Return the name of a claim in words: better-on-tasks -> 'better on tasks'."""
    return name.replace("-", " ").replace("_", " ")


def decimals(claim: ClaimResult) -> int:
    """Return the decimals with which the effects of a claim are shown: one more than its bounds take."""
    places = (f"{value:.6f}".rstrip("0").partition(".")[2] for value in (claim.smallest, claim.equivalence))
    return min(max(map(len, places)) + 1, 4)


def shown_effect(claim: ClaimResult) -> str:
    """Return the effect with its interval; a dash if it was not measured."""
    if claim.effect is None:
        return ABSENT
    places = decimals(claim)
    effect = signed(claim.effect, places)
    if claim.interval is None:
        return effect
    low, high = (signed(end, places) for end in claim.interval)
    return f"{effect} [{low}, {high}]"


def measured(result: LedgerRecord) -> dict[str, ClaimResult]:
    """Return the claims that have a value."""
    return {name: claim for name, claim in result.claims.items() if claim.effect is not None}


def unmeasured(result: LedgerRecord) -> dict[str, ClaimResult]:
    """Return the claims without a value, which the picture lacks."""
    return {name: claim for name, claim in result.claims.items() if claim.effect is None}


def claims_plot(result: LedgerRecord) -> ForestPlot | None:
    """Return the picture, or None if no claim has a value.

    An effect that the claim expects to be negative is drawn with the other sign, so that all claims expect
    theirs on the right.
    """
    effects = [effect_of(readable(name), claim) for name, claim in measured(result).items()]
    return ForestPlot(effects, TITLE, KEY) if effects else None


def effect_of(name: str, claim: ClaimResult) -> Effect:
    """Return a claim that has a value in units of its smallest effect."""
    assert claim.effect is not None
    rule = Rule(cast(Expectation, claim.expect), claim.smallest, claim.equivalence)
    unit = rule.sign * claim.smallest
    low, high = sorted(end / unit for end in claim.interval) if claim.interval else (0.0, 0.0)
    return Effect(
        name,
        claim.words,
        claim.verdict,
        bound=claim.equivalence / claim.smallest,
        value=claim.effect / unit,
        interval=(low, high) if claim.interval else None,
        singles={seed: each.effect / unit for seed, each in claim.seeds.items() if each.effect is not None},
        detail=f"{shown_effect(claim)} {claim.unit}",
    )


def label_of(result: LedgerRecord) -> str:
    """Return the picture in words, for those who do not see it."""
    parts = [
        f"{readable(name)}: {shown_effect(claim)} {claim.unit}, smallest effect {claim.smallest:g}, "
        f"{claim.words}"
        for name, claim in measured(result).items()
    ]
    return f"Effects of the claims with 95 % intervals. {'; '.join(parts)}."


def csv_of(result: LedgerRecord) -> str:
    """Return what the picture shows as CSV, unrounded: a row for each claim, in the claim's own unit."""
    seeds = list(dict.fromkeys(seed for claim in result.claims.values() for seed in claim.seeds))
    rows: list[list[Value]] = [[*COLUMNS, *(f"effect of seed {seed}" for seed in seeds)]]
    for name, claim in result.claims.items():
        low, high = claim.interval or (None, None)
        rows.append(
            [
                name, claim.claim, claim.statistic, claim.unit, claim.expect, claim.smallest,
                claim.equivalence, claim.verdict, claim.more_seeds, claim.effect, low, high, claim.deviation,
                *(claim.seeds[seed].effect if seed in claim.seeds else None for seed in seeds),
            ]
        )  # fmt: skip
    return csv_lines(rows)

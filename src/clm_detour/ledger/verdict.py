"""Decide on a claim from one effect for each seed, and count the seeds that a decision would take.

The interval of the mean effect is Student's, two-sided, at 95 %. A claim is

    more        supported if the interval lies above zero and the mean is at least the smallest effect of
                interest, refuted if the interval lies below the smallest effect of interest;
    equal       supported if the interval lies within the bound of equivalence, refuted if it lies outside;
    not_less    supported if the interval lies above minus the bound of equivalence, refuted if it lies below;

and `less` and `not_more` are the same for the negative effect. Everything else is undecided. Each comparison
with a bound is a one-sided t test at 2.5 %: a test of superiority, of inferiority to the smallest effect of
interest, of equivalence, and of non-inferiority (Lakens, Scheel and Isager 2018, "Equivalence Testing for
Psychological Research", doi 10.1177/2515245918770963). There, the equivalence test has a 90 % interval; here
it has the 95 % interval that is shown, which makes it stricter.

The verdicts are for each claim alone; they are not adjusted for the number of claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from clm_detour.ledger.schema import Expectation

Verdict = Literal["supported", "refuted", "undecided"]
Span = tuple[Any, Any]  # lower and upper end

CONFIDENCE = 0.95
POWER = 0.8
MOST_SEEDS = 1000
QUANTILES = (np.arange(400) + 0.5) / 400  # of the standard deviation of a sample
ROUNDING = 1e-12  # relative; a smaller deviation over seeds counts as none


@dataclass(frozen=True)
class Rule:
    """The rule by which a claim is decided; see the module.

    Args:
        smallest: The smallest effect of interest.
        equivalence: Bound of equivalence.
    """

    expect: Expectation
    smallest: float
    equivalence: float

    @property
    def sign(self) -> int:
        """The factor that makes the expected effect positive."""
        return -1 if self.expect in ("less", "not_more") else 1

    def spans(self, margin: Any) -> tuple[Span, list[Span]]:
        """Return the means for which the claim is supported, and those for which it is refuted.

        Args:
            margin: Half of the width of the interval.

        Returns:
            Spans of the mean times `sign`; a span whose lower end is above its upper one is empty.
        """
        bound = self.equivalence
        if self.expect == "equal":
            return (margin - bound, bound - margin), [(bound + margin, np.inf), (-np.inf, -bound - margin)]
        if self.expect in ("not_less", "not_more"):
            return (margin - bound, np.inf), [(-np.inf, -bound - margin)]
        return (np.maximum(margin, self.smallest), np.inf), [(-np.inf, self.smallest - margin)]


def margin_of(effects: ArrayLike) -> Any:
    """Return half of the width of the 95 % interval of the mean.

    Args:
        effects: (..., seeds).

    Returns:
        (...); infinite with one seed, or if all seeds have the same effect, so that their noise is not known.
    """
    values = np.asarray(effects, dtype=float)
    seeds = values.shape[-1]
    if seeds < 2:
        return np.full(values.shape[:-1], np.inf)[()]
    deviation = values.std(-1, ddof=1)
    known = deviation > ROUNDING * np.abs(values).max(-1)
    margin = stats.t.ppf(0.5 + CONFIDENCE / 2, seeds - 1) * deviation / seeds**0.5
    return np.where(known, margin, np.inf)[()]


def decide(effects: ArrayLike, rule: Rule) -> Any:
    """Return the verdicts on the effects of the seeds.

    Args:
        effects: (..., seeds).

    Returns:
        (...): 1 for supported, -1 for refuted, 0 for undecided.
    """
    values = np.asarray(effects, dtype=float)
    mean, margin = rule.sign * values.mean(-1), margin_of(values)
    supported, refuted = rule.spans(margin)
    return inside(mean, supported) * 1 - sum(inside(mean, span) * 1 for span in refuted)


def inside(mean: Any, span: Span) -> Any:
    """Return whether means lie in a span."""
    return (mean >= span[0]) & (mean <= span[1])


def chances(seeds: int, effect: float, deviation: float, rule: Rule) -> tuple[float, float]:
    """Return the chances that a claim is supported and that it is refuted.

    Effects of seeds are normal. Mean and deviation of a sample are then independent, so the chance is that of
    the mean, averaged over the quantiles of the deviation.

    Args:
        seeds: Number of seeds, two or more.
        effect: The true mean effect.
        deviation: The true standard deviation over seeds.
    """
    freedom, error = seeds - 1, deviation / seeds**0.5
    sample = error * np.sqrt(stats.chi2.ppf(QUANTILES, freedom) / freedom)
    supported, refuted = rule.spans(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * sample)
    mean = stats.norm(rule.sign * effect, error)

    def chance(span: Span) -> float:
        return float(np.maximum(mean.cdf(span[1]) - mean.cdf(span[0]), 0).mean())

    return chance(supported), sum(chance(span) for span in refuted)


def seeds_to_decide(seeds: int, effect: float, deviation: float, rule: Rule) -> int | None:
    """Return the number of seeds that decides the claim with a chance of 80 %.

    Args:
        seeds: Number of seeds that are there; the result is larger.
        effect: The true mean effect, such as the one seen.
        deviation: The true standard deviation over seeds.

    Returns:
        The number, or None if it is above `MOST_SEEDS`: the effect is too close to a bound.
    """

    def enough(count: int) -> bool:
        return sum(chances(count, effect, deviation, rule)) >= POWER

    below, above = max(seeds, 1), max(seeds, 1) + 1
    while not enough(above):
        if above >= MOST_SEEDS:
            return None
        below, above = above, min(2 * above, MOST_SEEDS)
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if enough(middle) else (middle, above)
    return above

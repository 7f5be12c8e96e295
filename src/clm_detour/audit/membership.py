"""Tell rows that a model was trained on from rows that it was not, by a score of each row.

The AUC is the probability that a random member has a higher score than a random non-member, where equal
scores count half. Its variance is that of DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44, 837-845),
computed from midranks as in Sun and Xu 2014 (IEEE Signal Processing Letters 21, 1389-1393).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binomtest, norm, rankdata

from clm_detour.records.audit import Membership
from clm_detour.records.store import OptionalInterval

LEVEL = 0.95
FEWEST = 1000  # non-members; one in so many may be taken for a member


def membership(members: np.ndarray, non_members: np.ndarray) -> Membership:
    """Return how well scores tell members from non-members.

    Args:
        members, non_members: Scores, (N,) each, at least two; higher means rather a member. If one is not
            finite, nothing is known.
    """
    if not (np.isfinite(members).all() and np.isfinite(non_members).all()):
        return Membership(auc=math.nan, interval=None)
    area, interval = auc(members, non_members)
    if len(non_members) < FEWEST:
        return Membership(auc=area, interval=interval)
    found = detected(members, non_members)
    bounds = binomtest(found, len(members)).proportion_ci(LEVEL, method="exact")
    return Membership(
        auc=area,
        interval=interval,
        tpr=found / len(members),
        tpr_interval=(float(bounds.low), float(bounds.high)),
    )


def auc(members: np.ndarray, non_members: np.ndarray) -> tuple[float, OptionalInterval]:
    """Return the AUC, and its interval within [0, 1].

    There is no interval where the estimated variance is 0, as it is if all members have higher scores than
    all non-members: however few rows there are, it would be a point.
    """
    m, n = len(members), len(non_members)
    ranks = rankdata(np.concatenate([members, non_members]))
    above = (ranks[:m] - rankdata(members)) / n  # share of non-members below each member
    below = 1 - (ranks[m:] - rankdata(non_members)) / m  # share of members above each non-member
    area = float(above.mean())
    error = math.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n)
    if error == 0:
        return area, None
    half = float(norm.ppf((1 + LEVEL) / 2)) * error
    return area, (max(area - half, 0.0), min(area + half, 1.0))


def detected(members: np.ndarray, non_members: np.ndarray) -> int:
    """Return the number of members with a score that at most one in a thousand non-members exceeds."""
    allowed = len(non_members) // FEWEST
    threshold = np.sort(non_members)[::-1][allowed]
    return int((members > threshold).sum())

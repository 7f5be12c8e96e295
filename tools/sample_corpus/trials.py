"""Results of invented trials whose numbers agree with each other and with the verdict.

The size of the effect follows from the wanted significance; rates, ratio, interval and p value are then
computed from the counts, as a statistician would.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from sample_corpus.choices import Choices
from sample_corpus.vocabulary import Outcome

SIGNIFICANT = 1.96
RATES = ("rate", "proportion")
RISKS = ("rate", "risk", "proportion")


def p_value(z: float) -> str:
    """Return the two-sided p value of a normal deviate, as journals print it."""
    p = math.erfc(abs(z) / math.sqrt(2.0))
    if p < 0.001:
        return "< 0.001"
    return f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def wanted_deviate(choices: Choices, works: bool) -> float:
    """Return a deviate that is clearly significant, or clearly not (then of either sign)."""
    return choices.uniform(2.3, 4.6) if works else choices.uniform(-1.0, 1.3)


def result(choices: Choices, outcome: Outcome, n1: int, n2: int, works: bool) -> SimpleNamespace:
    """Return the results of n1 treated and n2 control patients for an outcome, with a benefit if `works`."""
    sign = -1.0 if outcome.kind in ("low", "bad") else 1.0
    verbs = ("reduced", "lowered") if sign < 0 else ("increased", "improved")
    common: dict[str, Any] = {
        "outcome": outcome.name,
        "unit": outcome.unit,
        "works": works,
        "moved": choices.pick(verbs),
    }
    verb, rest, nouns = ("reduce", " the risk of", RISKS) if outcome.kind == "bad" else ("improve", "", RATES)
    common |= {"improve": verb + rest, "improves": f"{verb}s{rest}", "improved": f"{verb}d{rest}"}
    common["noun"] = choices.pick(nouns)
    deviate = sign * wanted_deviate(choices, works)
    numbers = (event if outcome.kind in ("good", "bad") else score)(choices, outcome, n1, n2, deviate)
    return SimpleNamespace(**common, **numbers, event=outcome.kind in ("good", "bad"))


def event(choices: Choices, outcome: Outcome, n1: int, n2: int, deviate: float) -> dict[str, str]:
    """Return counts, percentages and the relative risk of an event."""
    base = min(0.9, max(0.04, outcome.base / 100.0 * choices.uniform(0.75, 1.25)))
    b = max(4, round(n2 * base))
    base = b / n2
    spread = math.sqrt(base * (1.0 - base) * (1.0 / n1 + 1.0 / n2))
    a = min(n1 - 2, max(2, round(n1 * (base + deviate * spread))))
    while abs(deviate) > SIGNIFICANT > abs(log_ratio(a, n1, b, n2)[2]):
        if deviate > 0:
            a, b = (a + 1, b) if a < n1 - 2 else (a, b - 1)
        else:
            a, b = (a - 1, b) if a > 2 else (a, b + 1)
    ratio, error, z = log_ratio(a, n1, b, n2)
    low, high = (math.exp(ratio + side * SIGNIFICANT * error) for side in (-1.0, 1.0))
    return {
        "a": str(a), "b": str(b), "pa": f"{100 * a / n1:.1f}", "pb": f"{100 * b / n2:.1f}",
        "ratio": f"{math.exp(ratio):.2f}", "low": f"{low:.2f}", "high": f"{high:.2f}", "p": p_value(z),
    }  # fmt: skip


def log_ratio(a: int, n1: int, b: int, n2: int) -> tuple[float, float, float]:
    """Return the logarithm of the relative risk, its standard error, and their quotient."""
    ratio = math.log((a / n1) / (b / n2))
    error = math.sqrt(1 / a - 1 / n1 + 1 / b - 1 / n2)
    return ratio, error, ratio / error


def score(choices: Choices, outcome: Outcome, n1: int, n2: int, deviate: float) -> dict[str, str]:
    """Return means, standard deviation and the difference of a score."""
    decimals = 0 if outcome.base >= 100 else 2 if outcome.base < 5 else 1
    spread = outcome.spread * choices.uniform(0.8, 1.2)
    error = spread * math.sqrt(1.0 / n1 + 1.0 / n2)
    control = outcome.base * choices.uniform(0.93, 1.07)
    difference = max(deviate * error, 0.05 * control - control)
    low, high = (difference + side * SIGNIFICANT * error for side in (-1.0, 1.0))
    return {
        "a": f"{control + difference:.{decimals}f}", "b": f"{control:.{decimals}f}",
        "sd": f"{spread:.{decimals}f}",
        "diff": f"{difference:.{decimals}f}", "low": f"{low:.{decimals}f}", "high": f"{high:.{decimals}f}",
        "p": p_value(deviate),
    }  # fmt: skip

"""What weakens the comparison of detour and twin, as far as the records show it."""

from __future__ import annotations

import math

from clm_detour.report import wording
from clm_detour.report.arms import pairs, planned_tokens, same_rows
from clm_detour.report.records import Phase, PhaseEnd, Run, Score

PAPER_TOKENS = 11_000_000_000  # the paper's smallest run: 10B of detour and 1B of decay
SMALL = PAPER_TOKENS / 10
COMPUTE = 1.05  # arms whose times differ by less are called equal
SETTINGS = ("schedule", "batch_tokens", "precision", "device", "world_size")

Ended = tuple[Phase, PhaseEnd, Phase, PhaseEnd]


def caveats(run: Run) -> list[str]:
    """A sentence each."""
    found = one_seed(run)
    if {"detour", "twin"} <= run.arms.keys():
        found += [*small(run), *unequal(run)]
    models = run.held_out.models if run.held_out else {}
    if {"detour", "twin"} <= models.keys():
        found += noise(models["detour"].total, models["twin"].total)
    return found


def one_seed(run: Run) -> list[str]:
    """A run is one seed."""
    if not run.config:
        return []
    return [
        f"One seed ({run.config.seed}): how far apart two runs of the same arm would end is not known, so a "
        "difference may be chance."
    ]


def small(run: Run) -> list[str]:
    """Far from the paper's size."""
    own = [run.phases[id] for id in run.arms["detour"] if id not in run.arms["twin"]]
    trained = sum(planned_tokens(run, phase) for phase in own)
    if trained >= SMALL:
        return []
    return [
        f"A small run: {wording.tokens(trained)} of detour and decay, where the paper's smallest run takes 11B. "
        "What holds at one size need not hold at the other."
    ]


def unequal(run: Run) -> list[str]:
    """What differs between the arms besides the objective."""
    both = pairs(run, "detour", "twin")
    ended: list[Ended] = [(one, one.end, two, two.end) for one, two in both if one.end and two.end]
    if len(ended) < len(both):
        return ["Not every phase of the two arms has ended."]
    found = []
    detour, twin = (own_tokens(run, *arms) for arms in (("detour", "twin"), ("twin", "detour")))
    if detour != twin:
        found.append(
            f"Unequal training: the detour saw {wording.count(detour)} tokens of its own, the twin "
            f"{wording.count(twin)}."
        )
    if not same_rows(run, "detour", "twin"):
        found.append("Different data: detour and twin did not read the same rows of the same mixtures.")
    return found + unequal_settings(ended) + unequal_compute(ended)


def own_tokens(run: Run, arm: str, other: str) -> int:
    """Tokens that `arm` trained on beyond what it shares with `other`."""
    return sum(run.phases[id].tokens for id in run.arms[arm] if id not in run.arms[other])


def unequal_settings(ended: list[Ended]) -> list[str]:
    """Phases side by side under different settings."""
    found = []
    for one, one_end, two, two_end in ended:
        different = [name for name in SETTINGS if getattr(one_end, name) != getattr(two_end, name)]
        if different:
            words = wording.listing([name.replace("_", " ") for name in different])
            found.append(f"Phases {one.id} and {two.id} also differ in {words}.")
    return found


def unequal_compute(ended: list[Ended]) -> list[str]:
    """Equal tokens, different times."""
    detour = sum(end.seconds for _, end, _, _ in ended)
    twin = sum(end.seconds for _, _, _, end in ended)
    if max(detour, twin) <= COMPUTE * min(detour, twin):
        return []
    return [
        f"Equal tokens are not equal compute: the detour's own phases took {wording.duration(detour)}, the "
        f"twin's {wording.duration(twin)}."
    ]


def noise(detour: Score, twin: Score) -> list[str]:
    """What the number of predicted tokens leaves open."""
    if detour.predicted != twin.predicted:
        return [
            f"Detour and twin were measured on {wording.count(detour.predicted)} and "
            f"{wording.count(twin.predicted)} masked tokens: not the same ones."
        ]
    if not detour.predicted:
        return []
    variance = sum(score.accuracy * (1 - score.accuracy) / score.predicted for score in (detour, twin))
    spread, difference = 2 * math.sqrt(max(variance, 0.0)), detour.accuracy - twin.accuracy
    if abs(difference) >= spread:
        return []
    return [
        f"The difference in accuracy ({wording.points(difference)} points) is within what "
        f"{wording.count(detour.predicted)} masked tokens can tell apart: two standard errors are "
        f"{100 * spread:.1f} points, taking tokens as independent and the two models as unpaired."
    ]

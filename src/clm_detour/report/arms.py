"""Where a phase lies within its arm, and which phases of two arms stand against each other."""

from __future__ import annotations

from collections.abc import Iterable

from clm_detour.config.units import parse_tokens
from clm_detour.report.records import Phase, Run

NAMED_SLOTS = ("base", "detour", "twin")
OTHER_SLOTS = ("other-1", "other-2", "other-3")


def colour_slot(run: Run, arm: str) -> str:
    """The arm's colour as a name that `page.css` and the figures share."""
    if arm in NAMED_SLOTS:
        return arm
    others = [name for name in run.arms if name not in NAMED_SLOTS]
    return OTHER_SLOTS[others.index(arm) % len(OTHER_SLOTS) if arm in others else 0]


def colour_slots(run: Run, arms: Iterable[str]) -> dict[str, str]:
    """The slot of each arm's colour."""
    return {arm: colour_slot(run, arm) for arm in arms}


def first_arm(run: Run, phase_id: str) -> str:
    """The first arm that has the phase: a shared prefix belongs to the arm that ends with it."""
    return next((arm for arm, ids in run.arms.items() if phase_id in ids), phase_id)


def arms_of(run: Run, phase_id: str) -> list[str]:
    """All arms that have the phase."""
    return [arm for arm, ids in run.arms.items() if phase_id in ids]


def start_token(run: Run, phase_id: str) -> int:
    """Tokens trained in the phases before this one."""
    names = phase_id.split(".")
    before = [".".join(names[:i]) for i in range(1, len(names))]
    return sum(run.phases[id].tokens for id in before if id in run.phases)


def pairs(run: Run, first: str, second: str) -> list[tuple[Phase, Phase]]:
    """The phases of two arms after what they share, side by side; a longer arm's rest has no partner."""
    sides = zip(run.arms.get(first, ()), run.arms.get(second, ()), strict=False)
    return [(run.phases[one], run.phases[other]) for one, other in sides if one != other]


def planned_tokens(run: Run, phase: Phase) -> int:
    """What the phase ran for, or, before its end, what the recipe asks for."""
    if phase.end or not run.config or phase.name not in run.config.phases:
        return phase.tokens
    return parse_tokens(run.config.phases[phase.name].duration, f"phases.{phase.name}.duration")


def own_phases(run: Run, arm: str, other: str) -> list[Phase]:
    """The phases of `arm` that `other` does not share."""
    return [run.phases[id] for id in run.arms[arm] if id not in run.arms[other]]


def schedule_name(run: Run, phase: Phase) -> str | None:
    """Of the schedule that the phase ran under, or, before its end, that of the recipe; None if neither is there."""
    if phase.end:
        return phase.end.schedule.name
    planned = run.config.phases.get(phase.name) if run.config else None
    return planned.schedule.name if planned else None


def same_rows(run: Run, first: str, second: str) -> bool:
    """Whether two arms are known to have read the same rows of the same mixtures in the same order."""
    both = pairs(run, first, second)
    ends = [(one.end, other.end) for one, other in both]
    if not both or len(run.arms[first]) != len(run.arms[second]):
        return False
    return all(
        one
        and other
        and (one.mixture, one.first_row, one.next_row) == (other.mixture, other.first_row, other.next_row)
        for one, other in ends
    )

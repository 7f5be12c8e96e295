"""The cards of the first screen: a difference of detour and twin, that of two equal twins, and one word.

The two equal twins are the arms `twin` and `control`, which differ in their seed only. `report.outcome` has
the rules by which loss and tasks are judged. The rules of the other two cards are here. docs/statistics.md
states all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from clm_detour.figures import wording
from clm_detour.records.run import Score
from clm_detour.report.caveats import COMPUTE
from clm_detour.report.outcome import Outcome, of_scores, of_tasks, signed_task_noise, task_noise
from clm_detour.report.run import Phase, Run
from clm_detour.utils.progress import human

NO_CONTROL, NOT_MEASURED, INSIDE, BEYOND = "no control", "not measured", "inside noise", "beyond noise"
UNDECIDED = "undecided"
WORDS = {
    Outcome.AHEAD: "better",
    Outcome.BEHIND: "worse",
    Outcome.EQUIVALENT: "equivalent",
    Outcome.UNDECIDED: INSIDE,
}
UNMEASURED = "detour and twin have not both been measured"
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


@dataclass(frozen=True)
class Card:
    """A card.

    Args:
        value: The difference of detour and twin; a dash where it was not measured.
        beside: The difference of two equal twins, or why it is not known.
        word: What the rules make of the two.
        detail: What follows the word, such as how many times the noise the difference is.
    """

    title: str
    value: str
    beside: str
    word: str
    detail: str = ""

    @property
    def kind(self) -> str:
        """The look of the word."""
        return self.word if self.word in ("better", "worse") else "open"


def cards(run: Run) -> list[Card]:
    """Return the cards; none for a run without the arms detour and twin."""
    if not {"detour", "twin"} <= run.arms.keys():
        return []
    return [loss_card(run), task_card(run), network_card(run), compute_card(run)]


def loss_card(run: Run) -> Card:
    """Return the card of the held-out loss."""
    title = "Held-out loss, detour − twin"
    totals = run.held_out.totals if run.held_out else {}
    detour, twin, control = (totals.get(name) for name in ("detour", "twin", "control"))
    if not detour or not twin:
        return Card(title, wording.ABSENT, UNMEASURED, NOT_MEASURED)
    difference = detour.loss - twin.loss
    if not math.isfinite(difference):
        return Card(title, wording.ABSENT, "a loss is not a finite number", "not finite")
    value = wording.signed(difference)
    if not control or not math.isfinite(control.loss):
        return Card(title, value, "no second twin was measured", NO_CONTROL)
    return judged_loss(title, detour, twin, control)


def judged_loss(title: str, detour: Score, twin: Score, control: Score) -> Card:
    """Return the card of three losses that were measured."""
    word = WORDS[of_scores(detour, twin, control, "loss")]
    difference, noise = detour.loss - twin.loss, twin.loss - control.loss
    beside = f"twin − control: {wording.signed(noise)}"
    return Card(title, wording.signed(difference), beside, word, times_noise(word, difference, noise))


def task_card(run: Run) -> Card:
    """Return the card of the tasks."""
    found = run.evaluation.difference("detour", "twin") if run.evaluation else None
    if not found or not run.evaluation:
        return Card("Tasks, detour − twin", wording.ABSENT, UNMEASURED, NOT_MEASURED)
    seeds = {len(run.evaluation.scores["twin"][task].seeds) for task in found.tasks}
    over = f" × {wording.counted(max(seeds), 'seed')}" if len(seeds) == 1 else ""
    title = f"Tasks ({wording.count(len(found.tasks))}{over}), detour − twin"
    value = f"{wording.signed(found.difference, 1)} points"
    noise = signed_task_noise(run)
    if noise is None:
        return Card(title, value, "no second twin was fine-tuned on all of them", NO_CONTROL)
    word = WORDS[of_tasks(found, task_noise(run))]
    if word == INSIDE and round(abs(found.difference), 1) > round(abs(noise), 1):  # as shown
        word = UNDECIDED  # it exceeds the noise of the twins, but not that of seeds or tasks
    beside = f"twin − control: {wording.signed(noise, 1)}"
    return Card(title, value, beside, word, times_noise(word, found.difference, noise))


def times_noise(word: str, difference: float, noise: float) -> str:
    """Return how many times the difference of the twins a difference is that lies beyond it."""
    ratio = abs(difference / noise) if noise else math.inf
    return f"{human(float(f'{ratio:.2g}'))}× noise" if word in ("better", "worse") and ratio < 1000 else ""


def network_card(run: Run) -> Card:
    """Return the card of the divergence; it lies beyond the noise if the interval of its ratio is above 1."""
    title, found = "Divergence, 1 − CKA", run.comparison
    main = found.variant("detour_twin", "debiased") if found else None
    if not found or not main or math.isnan(main.model.divergence):
        return Card(title, wording.ABSENT, "the networks have not been compared", NOT_MEASURED)
    value = wording.percent(main.model.divergence)
    control, ratio = found.variant("control", "debiased"), (found.ratio or {}).get("debiased")
    if not control or not ratio or math.isnan(control.model.divergence) or math.isnan(ratio.model):
        return Card(title, value, "no second twin was compared", NO_CONTROL)
    lowest = ratio.interval[0] if ratio.interval else ratio.model
    detail = f"{ratio.model:.2f}×"
    if ratio.interval:
        detail += f" ({ratio.interval[0]:.2f}–{ratio.interval[1]:.2f})"
    beside = f"twin and control: {wording.percent(control.model.divergence)}"
    return Card(title, value, beside, BEYOND if lowest > 1 else INSIDE, detail)


def compute_card(run: Run) -> Card:
    """Return the card of what the arms' own phases took: operations or, where these are not known, time.

    Operations are counted and times are those of one run, so the word is about a factor, not about noise.
    """
    arms = ["detour", "twin", *(["control"] if "control" in run.arms else [])]
    own = [run.own_phases(arm, "twin" if arm == "detour" else "detour") for arm in arms]
    ended = [phase.end is not None for phases in own[:2] for phase in phases]
    if not ended or not all(ended):
        return Card("Compute of own phases", wording.ABSENT, "not every phase has ended", NOT_MEASURED)
    operations = [operations_of(run, phases) for phases in own]
    counted = operations[0] is not None and operations[1] is not None
    amounts = operations if counted else [seconds_of(phases) for phases in own]
    detour, twin = (amount or 0.0 for amount in amounts[:2])
    title = f"{'Compute' if counted else 'Time'} of own phases"
    if not twin:
        return Card(title, wording.ABSENT, "the twin has no phase of its own", NOT_MEASURED)
    against = (
        "{} against {} {}FLOP".format(*scaled(detour, twin))
        if counted
        else f"{wording.duration(detour)} against {wording.duration(twin)}"
    )
    control = amounts[2] if len(amounts) > 2 else None
    twins = f"; twins: {change(control, twin)}" if control else ""
    tokens = [sum(phase.tokens for phase in phases) for phases in own[:2]]
    word = "same cost" if max(detour, twin) <= COMPUTE * min(detour, twin) else "costs more"
    word = "costs less" if word == "costs more" and detour < twin else word
    detail = "same tokens" if tokens[0] == tokens[1] else "different tokens"
    return Card(title, change(detour, twin), f"{against}{twins}", word, detail)


def operations_of(run: Run, phases: list[Phase]) -> float | None:
    """Return the floating-point operations of phases, or None if those of one are not known."""
    if not all(phase.id in run.operations for phase in phases):
        return None
    return math.fsum(run.operations[phase.id] for phase in phases)


def seconds_of(phases: list[Phase]) -> float | None:
    """Return the wall time of phases, or None if one has not ended."""
    seconds = [phase.end.seconds for phase in phases if phase.end]
    return math.fsum(seconds) if len(seconds) == len(phases) else None


def change(amount: float, reference: float) -> str:
    """Return the relative change from a reference: 1.31 and 1.0 -> '+31 %'."""
    return f"{wording.signed(100 * (amount / reference - 1), 0)}{wording.NARROW}%"


def scaled(one: float, other: float) -> tuple[str, str, str]:
    """Return two amounts in one unit, with the unit's prefix."""
    size, prefix = next((pair for pair in PREFIXES if max(one, other) >= pair[0]), (1.0, ""))
    return f"{one / size:.2f}", f"{other / size:.2f}", prefix

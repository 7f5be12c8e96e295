"""The top of the page: what was done, and how detour and twin compare.

Every sentence is made from records; where a record is missing, its sentence is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile

from markupsafe import Markup

from clm_detour.report import wording
from clm_detour.report.arms import colour_slot, own_phases, planned_tokens, same_rows, schedule_name
from clm_detour.report.evaluation import Difference
from clm_detour.report.markup import key
from clm_detour.report.records import Phase, Run, Score, Scores
from clm_detour.report.tables import Row, Text, table, with_best

STEP = 0.0005  # what the page's decimals can show, of a loss and of an accuracy
DECAYS = {
    "one_minus_sqrt",
    "cosine",
    "linear",
}  # schedules that fall to the end; wsd does in its last part only
FEW_TASKS = 6  # all of five won: a sign test over tasks still has p = 0.06


@dataclass(frozen=True)
class Verdict:
    """The result in words and in one table."""

    title: str
    sentences: list[str]
    summary: Markup | None


def what_was_done(run: Run) -> list[str]:
    """Two sentences: the detour arm, its twin."""
    if not is_detour(run):
        arms = [f"{arm} ({path_of(run, ids)})" for arm, ids in run.arms.items()]
        return [f"This run has the arms {wording.listing(arms)}."] if arms else []
    detour, twin = own_phases(run, "detour", "twin"), own_phases(run, "twin", "detour")
    causal = [phase for phase in detour if phase.objective == "clm"]
    after = detour[len(causal) :]
    instead, last = twin[: len(causal)], twin[len(causal) :]
    rates = {phase.end.mask_rate if phase.end else None for phase in instead}
    rate = rates.pop() if len(rates) == 1 else None
    masked = f" with {wording.percent(rate, 0)} of the tokens masked" if rate else ""
    rows = ", on the same rows in the same order" if same_rows(run, "detour", "twin") else ""
    return [
        f"{starting_point(run)} the detour arm trains for {amount(run, causal)} as a causal language model, "
        "each token predicted from those before it, then returns to masked language modelling for "
        f"{amount(run, after)} while the learning rate decays.",
        f"Its twin spends {amount(run, instead)} on masked language modelling{masked} instead, then "
        f"{amount(run, last)} on the same kind of decay{rows}.",
    ]


def is_detour(run: Run) -> bool:
    """Whether the arms detour and twin are what their names say: CLM then MLM while the rate decays, against MLM of as many phases."""
    if not {"detour", "twin"} <= run.arms.keys():
        return False
    detour, twin = own_phases(run, "detour", "twin"), own_phases(run, "twin", "detour")
    causal = list(takewhile(lambda phase: phase.objective == "clm", detour))
    ends = [arm[len(causal) :] for arm in (detour, twin)]
    schedules = [[schedule_name(run, phase) for phase in end] for end in ends]
    return (
        bool(causal and ends[0])
        and all(phase.objective == "mlm" for phase in [*ends[0], *twin])
        and schedules[0] == schedules[1]
        and DECAYS.issuperset(schedules[0])
    )


def path_of(run: Run, ids: list[str]) -> str:
    """clm: 10B tokens of CLM → decay: 1B tokens of MLM."""
    return " → ".join(
        f"{phase.name}: {amount(run, [phase])} of {phase.objective.upper()}"
        if phase.objective
        else phase.name
        for phase in (run.phases[id] for id in ids)
    )


def starting_point(run: Run) -> str:
    """From which model both arms begin."""
    config, shared = run.config, [id for id in run.arms["detour"] if id in run.arms["twin"]]
    begun = f" trained here for {amount(run, [run.phases[id] for id in shared])}" if shared else ""
    if not config:
        return f"From one base model{begun},"
    if config.model.base:
        return f"From {config.model.base}{begun},"
    shape = config.model.config or {}
    layers, width = shape.get("num_hidden_layers"), shape.get("hidden_size")
    size = f" ({layers} layers, hidden size {width})" if layers and width else ""
    return f"From a new ModernBERT{size}{begun or ' with random weights'},"


def amount(run: Run, phases: list[Phase]) -> str:
    """Tokens of some phases."""
    return wording.tokens(sum(planned_tokens(run, phase) for phase in phases))


def verdict(run: Run) -> Verdict:
    """Detour against twin, each against the base."""
    models = run.held_out.models if run.held_out else {}
    table = summary(run, models) if models else None
    beside = [text for text in (on_tasks(run), on_networks(run)) if text]
    if not {"detour", "twin"} <= models.keys():
        title = "No result yet: detour and twin have not both been measured on held-out text"
        return Verdict(title, beside, table)
    detour, twin = models["detour"].total, models["twin"].total
    if not (math.isfinite(detour.loss) and math.isfinite(twin.loss)):
        return Verdict("No comparison: a held-out loss is not finite", beside, table)
    sentences = [against_twin(detour, twin), by_source(models["detour"], models["twin"])]
    if "base" in models:
        sentences.append(against_base(models["base"], models["detour"], models["twin"]))
    control = models["control"].total if "control" in models else None
    return Verdict(who_is_ahead(detour, twin, control), [*filter(None, sentences), *beside], table)


def on_tasks(run: Run) -> str:
    """Detour and twin fine-tuned."""
    found = run.evaluation.difference("detour", "twin") if run.evaluation else None
    if not found:
        return ""
    return (
        f"Fine-tuned on {found.tasks} {'task' if found.tasks == 1 else 'tasks'}, the detour is {wording.signed(found.value, 2)} "
        f"points from its twin on average ({certainty(found)}): {found.wins} won, {found.losses} lost, {found.ties} tied."
    )


def certainty(found: Difference) -> str:
    """The interval, or why there is none, and whether it is open which is better."""
    if found.interval is None:
        one_seed = any(interval is None for _, interval in found.by_task.values())
        few = [*(["one task"] * (found.tasks == 1)), *(["one seed"] * one_seed)]
        return f"no interval: {' with '.join(few)} leaves open which is better"
    low, high = (wording.signed(end, 2) for end in found.interval)
    text = f"95 % interval {low} to {high}"
    if found.interval[0] <= 0 <= found.interval[1]:
        return f"{text}, which leaves open which is better"
    few_tasks = ", but so few tasks leave open which is better on others"
    return text + (few_tasks if found.tasks < FEW_TASKS else "")


def on_networks(run: Run) -> str:
    """How far apart the networks of detour and twin are, against two twins and against themselves before the decay."""
    found = run.comparison.parts["detour_twin"].get("debiased") if run.comparison else None
    if not run.comparison or not found or found.model.value is None:
        return ""
    text = (
        f"Inside, the networks of detour and twin diverge by {wording.percent(found.model.value)} (1 − CKA, debiased, the mean over "
        "their layers)"
    )
    ratio, retention = (each.get("debiased") for each in (run.comparison.ratio, run.comparison.retention))
    if ratio and ratio.value is not None:
        text += f", {ratio.value:.2f} times as much as two twins"
    if retention and retention.value is not None:
        text += f"; after the decay {retention.value:.2f} times what it was before it"
    return f"{text}."


def who_is_ahead(detour: Score, twin: Score, control: Score | None) -> str:
    """By loss and by accuracy; where there is a second twin, a difference no larger than that of the twins counts as none."""
    by_loss = -sign(detour.loss - twin.loss, apart(twin, control, "loss"))
    by_accuracy = sign(detour.accuracy - twin.accuracy, apart(twin, control, "accuracy"))
    if by_loss * by_accuracy < 0:
        better, worse = ("loss", "accuracy") if by_loss > 0 else ("accuracy", "loss")
        return f"A mixed result: the detour has the better {better}, its twin the better {worse}"
    if by_loss == by_accuracy == 0:
        return "The detour and its twin end " + (
            "level" if control is None else "no further apart than two twins"
        )
    return (
        "The detour ends ahead of its twin"
        if by_loss + by_accuracy > 0
        else "The detour ends behind its twin"
    )


def apart(twin: Score, control: Score | None, measure: str) -> float:
    """How far two twins are apart, and no less than the page can show."""
    difference = 0.0 if control is None else abs(getattr(twin, measure) - getattr(control, measure))
    return max(STEP, difference) if math.isfinite(difference) else STEP


def sign(difference: float, least: float = STEP) -> int:
    """-1, 1, or 0 for less than `least`."""
    if not math.isfinite(difference) or abs(difference) < least:
        return 0
    return 1 if difference > 0 else -1


def against_twin(detour: Score, twin: Score) -> str:
    """The one result."""
    loss, accuracy = detour.loss - twin.loss, detour.accuracy - twin.accuracy
    relative = f" ({wording.percent(abs(loss) / twin.loss)})" if twin.loss > 0 else ""
    loss_words = {
        -1: f"lower, that is better, by {abs(loss):.3f}{relative}",
        0: "the same in print",
        1: f"higher, that is worse, by {abs(loss):.3f}{relative}",
    }
    accuracy_words = {
        -1: f"lower by {abs(100 * accuracy):.1f} points",
        0: "the same in print",
        1: f"higher by {abs(100 * accuracy):.1f} points",
    }
    return (
        f"On held-out text the detour's masked-LM loss is {wording.loss(detour.loss)} against its twin's "
        f"{wording.loss(twin.loss)}: {loss_words[sign(loss)]}. Its accuracy is "
        f"{wording.percent(detour.accuracy)} against {wording.percent(twin.accuracy)}: "
        f"{accuracy_words[sign(accuracy)]}."
    )


def by_source(detour: Scores, twin: Scores) -> str:
    """On which sources the detour has the lower loss, on which its twin."""
    shared = [source for source in detour.by_source if source in twin.by_source]
    signs = {source: sign(detour.by_source[source].loss - twin.by_source[source].loss) for source in shared}
    lower = [source for source in shared if signs[source] < 0]
    higher = [source for source in shared if signs[source] > 0]
    parts = [
        f"{who} has the lower loss on {wording.listing(sources)}"
        for who, sources in (("the detour", lower), ("its twin", higher))
        if sources
    ]
    return f"By source, {wording.listing(parts)}." if parts else ""


def against_base(base: Scores, detour: Scores, twin: Scores) -> str:
    """Each arm against where it began."""
    arms = {"detour": detour, "twin": twin}
    parts = [
        f"the {name}'s loss is {wording.signed(arm.total.loss - base.total.loss)}, its accuracy "
        f"{wording.points(arm.total.accuracy - base.total.accuracy)} points"
        for name, arm in arms.items()
    ]
    rises = []
    for source, score in base.by_source.items():
        there = {name: arm.by_source[source].loss for name, arm in arms.items() if source in arm.by_source}
        by = [
            f"{name} {wording.signed(loss - score.loss)}"
            for name, loss in there.items()
            if sign(loss - score.loss) > 0
        ]
        if by:
            rises.append(f"{source} ({', '.join(by)})")
    worse = f" The loss rose on {wording.listing(rises)}." if rises else ""
    return f"Against the base model {'; '.join(parts)}.{worse}"


def summary(run: Run, models: dict[str, Scores]) -> Markup:
    """Loss and accuracy of each model, and what changed from the base."""
    totals = [scores.total for scores in models.values()]
    losses = with_best([t.loss for t in totals], wording.loss, lowest=True, absent=wording.ABSENT)
    accuracies = with_best([t.accuracy for t in totals], wording.percent, lowest=False, absent=wording.ABSENT)
    names: list[Text] = [key(colour_slot(run, name), name) for name in models]
    columns: list[list[Text]] = [names, losses, accuracies]
    head: list[Text] = ["Model", "Loss", "Accuracy"]
    note = "Best in bold."
    if "base" in models:
        base = models["base"].total
        changes = [(t.loss - base.loss, t.accuracy - base.accuracy) for t in totals]
        columns.insert(2, [wording.signed(loss) if loss else "" for loss, _ in changes])
        columns.append([wording.points(accuracy) if accuracy else "" for _, accuracy in changes])
        head[2:] = ["− base", "Accuracy", "− base"]
        note += " − base: what changed from it, accuracy in points."
    rows = [Row(cells) for cells in zip(*columns, strict=True)]
    return table("Held-out masked language modelling", head, rows, note=note)

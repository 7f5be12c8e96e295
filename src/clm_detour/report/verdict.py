"""The top of the page: what was done, and how detour and twin compare.

Every sentence is made from records; where a record is missing, its sentence is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile

from clm_detour.evaluate.tables import interval_words
from clm_detour.figures import wording
from clm_detour.records.evaluation import TaskComparison
from clm_detour.records.run import Score, Scores
from clm_detour.report.outcome import is_clear, loss_clause, sign, task_clause, task_noise
from clm_detour.report.run import Phase, Run

DECAYS = {
    "one_minus_sqrt",
    "cosine",
    "linear",
}  # schedules that fall from start to end; wsd does in its last part only


@dataclass(frozen=True)
class Verdict:
    """The result in words."""

    title: str
    sentences: list[str]


def what_was_done(run: Run) -> list[str]:
    """Return a sentence on the detour arm and one on its twin, or one on the arms of any other run."""
    if not is_detour(run):
        arms = [f"{arm} ({path_of(run, ids)})" for arm, ids in run.arms.items()]
        return [f"This run has the arms {wording.listing(arms)}."] if arms else []
    detour, twin = run.own_phases("detour", "twin"), run.own_phases("twin", "detour")
    causal = [phase for phase in detour if phase.objective == "clm"]
    after = detour[len(causal) :]
    instead, last = twin[: len(causal)], twin[len(causal) :]
    masks = {(phase.end.mask_rate, phase.end.mask_unit) if phase.end else None for phase in instead}
    rate, unit = (masks.pop() if len(masks) == 1 else None) or (None, "token")
    masked = f" with {wording.percent(rate, 0)} of the {unit}s masked" if rate else ""
    rows = ", on the same rows in the same order" if run.same_rows("detour", "twin") else ""
    return [
        f"{starting_point(run)} the detour arm trains for {amount(run, causal)} as a causal language model, "
        "which predicts each token from the tokens before it. It then returns to masked language modeling "
        f"for {amount(run, after)} while the learning rate decays.",
        f"Its twin instead trains for {amount(run, instead)} as a masked language model{masked}, then for "
        f"{amount(run, last)} with the same kind of decay{rows}.",
    ]


def is_detour(run: Run) -> bool:
    """Return whether the arms detour and twin are what their names say.

    That is: CLM, then MLM while the learning rate decays, against MLM in as many phases with the same kind of
    decay.
    """
    if not {"detour", "twin"} <= run.arms.keys():
        return False
    detour, twin = run.own_phases("detour", "twin"), run.own_phases("twin", "detour")
    causal = list(takewhile(lambda phase: phase.objective == "clm", detour))
    ends = [arm[len(causal) :] for arm in (detour, twin)]
    schedules = [[run.schedule_name(phase) for phase in end] for end in ends]
    return (
        bool(causal and ends[0])
        and all(phase.objective == "mlm" for phase in [*ends[0], *twin])
        and schedules[0] == schedules[1]
        and DECAYS.issuperset(schedules[0])
    )


def path_of(run: Run, ids: list[str]) -> str:
    """Return the phases of an arm in words: `clm: 10B tokens of CLM → decay: 1B tokens of MLM`."""
    return " → ".join(
        f"{phase.name}: {amount(run, [phase])} of {phase.objective.upper()}"
        if phase.objective
        else phase.name
        for phase in (run.phases[id] for id in ids)
    )


def starting_point(run: Run) -> str:
    """Return from which model both arms begin, as the opening of a sentence."""
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
    """Return the tokens of some phases in words."""
    return wording.tokens(sum(run.planned_tokens(phase) for phase in phases))


def verdict(run: Run) -> Verdict:
    """Return how detour and twin compare; held-out loss and tasks are judged apart."""
    loss, tasks = loss_clause(run), task_clause(run)
    if loss or (run.evaluation and run.evaluation.difference("detour", "twin")):
        title = " ".join(filter(None, (loss or "Held-out loss: not measured.", tasks)))
    else:
        title = without_result(run)
    sentences = [*on_held_out(run), on_tasks(run), on_networks(run)]
    return Verdict(title, [sentence for sentence in sentences if sentence])


def without_result(run: Run) -> str:
    """Return the title of a run in which detour and twin cannot be compared."""
    if run.arms and not {"detour", "twin"} <= run.arms.keys():
        arms = list(run.arms)
        return f"{'Arm' if len(arms) == 1 else 'Arms'} {wording.listing(arms)}: no detour and twin to compare"
    return "No result yet: detour and twin have not both been measured"


def on_held_out(run: Run) -> list[str]:
    """Return sentences on the losses, where those of detour and twin were measured and are finite."""
    models = run.held_out.models if run.held_out else {}
    detour, twin = (run.held_out.totals.get(name) if run.held_out else None for name in ("detour", "twin"))
    if not detour or not twin or not (math.isfinite(detour.loss) and math.isfinite(twin.loss)):
        return []
    return [
        against_twin(detour, twin),
        by_source(models["detour"], models["twin"]),
        against_base(models["base"], models["detour"], models["twin"]) if "base" in models else "",
    ]


def on_tasks(run: Run) -> str:
    """Return a sentence on detour and twin fine-tuned on tasks, beside two equal twins on the same tasks."""
    found = run.evaluation.difference("detour", "twin") if run.evaluation else None
    if not found:
        return ""
    tasks = wording.counted(len(found.tasks), "task")
    parts = [
        f"Fine-tuned on {tasks}, the detour is {wording.signed(found.difference, 2)} points from its twin on "
        f"average ({certainty(found)}): {wording.counted(found.wins, 'task')} won, {found.losses} lost, "
        f"{found.ties} tied"
    ]
    if found.seed_wins is not None and found.seed_losses is not None:
        parts.append(f"; of single runs with equal seeds {found.seed_wins} won, {found.seed_losses} lost")
    noise = task_noise(run)
    if noise is not None:
        parts.append(f". On the same tasks two equal twins are {noise:.2f} points apart")
    return "".join([*parts, "."])


def certainty(found: TaskComparison) -> str:
    """Return interval and p in words, or why there are none, and whether it is open which is better."""
    parts = [interval_words(found, lambda end: wording.signed(end, 2)) or without_interval(found)]
    if found.p_adjusted is not None or found.p is not None:
        p, name = (found.p, "p") if found.p_adjusted is None else (found.p_adjusted, "p after Holm")
        parts.append(f"{name} = {p:.2g}")
    if found.equivalence:
        parts.append(found.equivalence.sentence(found.interval_over))
    if not is_clear(found):
        parts.append("which leaves open which is better")
    elif found.p is None:
        parts.append("which leaves open which is better on other tasks")
    return "; ".join(parts)


def without_interval(found: TaskComparison) -> str:
    """Return why there is no interval."""
    if found.seed_wins is None:
        return "no interval: the evaluation is of version 0.1.0"
    return "no interval: seeds are too few or do not differ"


def on_networks(run: Run) -> str:
    """Return a sentence on how far apart the networks of detour and twin are, with ratio and retention."""
    comparison = run.comparison
    found = comparison.variant("detour_twin", "debiased") if comparison else None
    if not comparison or not found or math.isnan(found.model.divergence):
        return ""
    text = (
        f"Inside, the networks of detour and twin diverge by {wording.percent(found.model.divergence)} (1 − "
        "CKA, debiased, the mean over their layers)"
    )
    ratio, retention = ((each or {}).get("debiased") for each in (comparison.ratio, comparison.retention))
    if ratio and not math.isnan(ratio.model):
        text += f", {ratio.model:.2f} times as much as two twins"
    if retention and not math.isnan(retention.model):
        text += f"; after the decay it is {retention.model:.2f} times what it was before it"
    return f"{text}."


def against_twin(detour: Score, twin: Score) -> str:
    """Return a sentence on loss and accuracy of the detour against its twin."""
    loss, accuracy = detour.loss - twin.loss, detour.accuracy - twin.accuracy
    relative = f" ({wording.percent(abs(loss) / twin.loss)})" if twin.loss > 0 else ""
    loss_words = {
        -1: f"lower, which is better, by {abs(loss):.3f}{relative}",
        0: "the same to three decimals",
        1: f"higher, which is worse, by {abs(loss):.3f}{relative}",
    }
    accuracy_words = {
        -1: f"lower by {abs(100 * accuracy):.1f} points",
        0: "the same to one decimal",
        1: f"higher by {abs(100 * accuracy):.1f} points",
    }
    return (
        f"On held-out text the detour's masked-LM loss is {wording.loss(detour.loss)} against its twin's "
        f"{wording.loss(twin.loss)}: {loss_words[sign(loss)]}. Its accuracy is "
        f"{wording.percent(detour.accuracy)} against {wording.percent(twin.accuracy)}: "
        f"{accuracy_words[sign(accuracy)]}."
    )


def by_source(detour: Scores, twin: Scores) -> str:
    """Return a sentence on which sources the detour has the lower loss, and on which its twin."""
    signs = {source: sign(one.loss - other.loss) for source, (one, other) in shared(detour, twin).items()}
    lower = [source for source in signs if signs[source] < 0]
    higher = [source for source in signs if signs[source] > 0]
    parts = [
        f"{who} has the lower loss on {wording.listing(sources)}"
        for who, sources in (("the detour", lower), ("its twin", higher))
        if sources
    ]
    return f"By source, {wording.listing(parts)}." if parts else ""


def shared(one: Scores, other: Scores) -> dict[str, tuple[Score, Score]]:
    """Return the scores of both models on each source on which both were measured."""
    pairs = {source: (one.of(source), other.of(source)) for source in one.by_source}
    return {source: (mine, yours) for source, (mine, yours) in pairs.items() if mine and yours}


def against_base(base: Scores, detour: Scores, twin: Scores) -> str:
    """Return a sentence on each arm against the base model, and on the sources on which its loss rose."""
    arms = {"detour": detour, "twin": twin}
    parts = [
        f"the {name}'s loss changes by {wording.signed(arm.total.loss - base.total.loss)} and its accuracy "
        f"by {wording.points(arm.total.accuracy - base.total.accuracy)} points"
        for name, arm in arms.items()
        if arm.total and base.total
    ]
    changes = {
        name: {source: now.loss - before.loss for source, (now, before) in shared(arm, base).items()}
        for name, arm in arms.items()
    }
    rises = []
    for source in base.by_source:
        by = [
            f"{name} {wording.signed(change[source])}"
            for name, change in changes.items()
            if sign(change.get(source, 0.0)) > 0
        ]
        if by:
            rises.append(f"{source} ({', '.join(by)})")
    worse = f" The loss rose on {wording.listing(rises)}." if rises else ""
    return f"Against the base model, {'; '.join(parts)}.{worse}" if parts else ""

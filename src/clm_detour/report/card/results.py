"""Show what was measured of an arm's model, beside the other models of its run and published ones."""

from __future__ import annotations

import math

from clm_detour.figures import wording
from clm_detour.records.evaluation import Group, MeanScore
from clm_detour.report.card.metadata import DECIMALS
from clm_detour.report.outcome import Outcome, of_scores, of_tasks, task_noise
from clm_detour.report.run import Run
from clm_detour.report.verdict import is_detour

OTHER_ARM = {"detour": "twin", "twin": "detour"}
WORDS = {
    Outcome.AHEAD: "better",
    Outcome.BEHIND: "worse",
    Outcome.EQUIVALENT: "equivalent",
    Outcome.UNDECIDED: "undecided",
}
TURNED = {Outcome.AHEAD: Outcome.BEHIND, Outcome.BEHIND: Outcome.AHEAD}


def result(run: Run, arm: str) -> str:
    """Return the result in one sentence, or an empty text where nothing was measured."""
    parts = [part for part in (loss_result(run, arm), task_result(run, arm)) if part]
    if not parts:
        return ""
    text = " and ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def loss_result(run: Run, arm: str) -> str:
    """Return the loss on held-out text, beside that of the other arm and the noise."""
    totals = run.held_out.totals if run.held_out else {}
    score, other = totals.get(arm), totals.get(OTHER_ARM.get(arm, ""))
    if not score or not math.isfinite(score.loss):
        return ""
    text = f"the masked-LM loss on held-out text is {wording.loss(score.loss)}"
    if not other or not math.isfinite(other.loss):
        return text
    control = totals.get("control")
    if control and not math.isfinite(control.loss):
        control = None
    found = of_scores(totals["detour"], totals["twin"], control, "loss")
    apart = f"{abs(totals['twin'].loss - control.loss):.3f}" if control else None
    return (
        f"{text}, against {wording.loss(other.loss)} for {other_name(run, arm)} ({judged(found, arm, apart)})"
    )


def task_result(run: Run, arm: str) -> str:
    """Return the average over all tasks, beside that of the other arm and the noise."""
    found = run.evaluation
    group = next((group for group in found.averaged if group.name == "all"), None) if found else None
    if not found or not group or arm not in group.averages:
        return ""
    text = f"the average over {wording.counted(len(group.tasks), 'task')} is {group.averages[arm].mean:.1f}"
    other, difference = group.averages.get(OTHER_ARM.get(arm, "")), found.difference("detour", "twin")
    if not other or not difference:
        return text
    noise = task_noise(run)
    apart = None if noise is None else f"{noise:.1f} points"
    words = judged(of_tasks(difference, noise), arm, apart)
    return f"{text}, against {other.mean:.1f} for {other_name(run, arm)} ({words})"


def other_name(run: Run, arm: str) -> str:
    """Return the other arm of the comparison in words."""
    other = OTHER_ARM[arm]
    if not is_detour(run):
        return f"the arm `{other}`"
    return "a twin trained without the detour" if other == "twin" else "a twin trained with the detour"


def judged(found: Outcome, arm: str, apart: str | None) -> str:
    """Return the outcome for an arm, with how far two equal twins are apart."""
    word = WORDS[found if arm == "detour" else TURNED.get(found, found)]
    if apart is None:
        return f"{word}, as no second twin shows the noise" if found is Outcome.UNDECIDED else word
    return f"{word}; two equal twins are {apart} apart"


def held_out_rows(run: Run, arm: str) -> list[list[str]]:
    """Return a row for each model that was measured on held-out text."""
    totals = run.held_out.totals if run.held_out else {}
    return [
        [bold(model, arm), wording.loss(score.loss), f"{100 * score.accuracy:.{DECIMALS}f}"]
        for model, score in totals.items()
    ]


def general_text(run: Run, arm: str) -> str:
    """Return the loss on general text and its change from the base; an empty text where not measured."""
    general = run.held_out.general if run.held_out else None
    score = general.measured.get(arm) if general else None
    if not general or not score or not math.isfinite(score.loss):
        return ""
    unit = f" {run.held_out.unit}" if run.held_out and run.held_out.per_character else ""
    text = (
        f"On held-out general text ({general.source}) the masked-LM loss is {wording.loss(score.loss)}{unit}"
    )
    base = general.measured.get("base")
    if arm == "base" or not base or not math.isfinite(base.loss):
        return f"{text}."
    change = wording.signed(score.loss - base.loss)
    return f"{text}, against {wording.loss(base.loss)} of the model it started from ({change})."


def task_head(run: Run, arm: str) -> list[str]:
    """Return the head of the table of `task_rows`."""
    models = run.evaluation.scored if run.evaluation else []
    return ["task", "measure", "test texts", *(bold(model, arm) for model in models)]


def task_rows(run: Run) -> list[list[str]]:
    """Return a row for each task and average with the scores of every model of the run."""
    found = run.evaluation
    if not found:
        return []
    models = found.scored
    rows = [
        [
            task.name, task.metric.replace("_", " "), wording.count(task.n),
            *(score_text(found.scores[model].get(task.name)) for model in models),
        ]
        for task in found.tasks
    ]  # fmt: skip
    for group in found.averaged:
        scores = (score_text(group.averages.get(model)) for model in models)
        rows.append([average_name(group), "", "", *scores])
    return rows


def published_head(run: Run) -> list[str]:
    """Return the head of the table of `published_rows`."""
    found = run.evaluation
    return ["published model", *published_tasks(run), *map(average_name, found.averaged if found else [])]


def published_tasks(run: Run) -> list[str]:
    """Return the tasks of the run for which a score was published."""
    found = run.evaluation
    if not found:
        return []
    rows = found.published.values()
    return [task.name for task in found.tasks if any(task.name in row.scores for row in rows)]


def published_rows(run: Run) -> list[list[str]]:
    """Return the published scores on the tasks of the run, a row for each model."""
    found, tasks = run.evaluation, published_tasks(run)
    if not found or not tasks:
        return []
    return [
        [
            model,
            *(number_text(row.scores.get(task)) for task in tasks),
            *(number_text(row.averages.get(group.name)) for group in found.averaged),
        ]
        for model, row in found.published.items()
    ]


def average_name(group: Group) -> str:
    """Return the name of an average: `average, all, 11 of 12`."""
    return f"average, {group.name}, {len(group.tasks)} of {group.of}"


def score_text(score: MeanScore | None) -> str:
    """Return a score with its standard deviation: `81.02 ± 0.41`."""
    if score is None:
        return wording.ABSENT
    spread = "" if score.std is None else f" ± {score.std:.{DECIMALS}f}"
    return f"{score.mean:.{DECIMALS}f}{spread}"


def number_text(value: float | None) -> str:
    """Return a published score."""
    return wording.ABSENT if value is None else f"{value:.1f}"


def bold(model: str, arm: str) -> str:
    """Return the name of a model, in bold if it is the model of this card."""
    return f"**{model}**" if model == arm else model


def layer_rows(run: Run) -> list[list[str]]:
    """Return a row for each layer with its divergence between detour and twin, and between two twins."""
    found = run.comparison
    main = found.curve("detour_twin", "debiased") if found else None
    if not found or not main:
        return []
    control = found.curve("control", "debiased")
    noise = control.divergence if control else [math.nan] * len(main.divergence)
    rows = zip(found.main.pairs, main.divergence, noise, strict=True)
    return [[pair[0].replace("_", " "), share_text(value), share_text(floor)] for pair, value, floor in rows]


def networks(run: Run) -> str:
    """Return sentences on how far the networks of detour and twin are apart, or an empty text."""
    found = run.comparison
    main = found.variant("detour_twin", "debiased") if found else None
    if not found or not main or math.isnan(main.model.divergence):
        return ""
    text = (
        f"The networks of detour and twin diverge by {share_text(main.model.divergence)} (1 − CKA, debiased, "
        "the mean over their layers)"
    )
    control = found.variant("control", "debiased")
    if control and not math.isnan(control.model.divergence):
        text += f", two twins that differ in their seed by {share_text(control.model.divergence)}"
    retention = (found.retention or {}).get("debiased")
    if retention and not math.isnan(retention.model):
        text += f". After the decay the divergence is {retention.model:.2f} times what it was before it"
    return f"{text}."


def share_text(value: float) -> str:
    """Return a share in percent."""
    return wording.ABSENT if math.isnan(value) else f"{100 * value:.1f} %"

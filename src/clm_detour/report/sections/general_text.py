"""The section on general text: what each arm forgot of the text that the domain is not made of."""

from __future__ import annotations

import math

from markupsafe import Markup

from clm_detour.figures import wording
from clm_detour.figures.table import Row, Text, number, with_best
from clm_detour.records.run import GeneralText, Score
from clm_detour.report.markup import Section, join, key, paragraph, side_by_side, table
from clm_detour.report.run import Run
from clm_detour.report.sections.held_out import ends_figure


def general_text_section(run: Run) -> Section | None:
    """Return the losses on `evaluate.general`, and their changes from the base."""
    general = run.held_out.general if run.held_out else None
    if general is None:
        return None
    if not general.measured:
        nothing = paragraph(f"There is no held-out text of {general.source}, so nothing was measured.")
        return Section("general-text", "General text", nothing)
    base = general.measured.get("base")
    caption = "Higher than at the start: the model has become worse at general text."
    title = "Loss on general text at the ends of the phases"
    phases = {id: score for id, score in general.phases.items() if score.predicted}
    start = base if "base" not in run.arms else None
    ends = ends_figure(run, phases, "general-text-phases", title, caption, start)
    body = join(
        paragraph(introduction(run, general, base)),
        side_by_side(*filter(None, [ends])),
        general_text_table(run, general.measured, base),
    )
    return Section("general-text", "General text", body)


def introduction(run: Run, general: GeneralText, base: Score | None) -> str:
    """Return what was measured, and how much detour and twin forgot."""
    text = (
        f"Training on a domain costs some of what a model knew before. This is the masked loss on held-out "
        f"text of {general.source}, which does not count as text of the domain."
        + (f" Losses are in {run.held_out.unit}." if run.held_out and run.held_out.per_character else "")
    )
    changes = {
        name: general.measured[name].loss - base.loss
        for name in ("detour", "twin", "control")
        if base and name in general.measured and math.isfinite(general.measured[name].loss - base.loss)
    }
    if not changes:
        return text
    found = wording.listing([f"{wording.signed(change)} for {name}" for name, change in changes.items()])
    return f"{text} Its change from the base is {found}."


def general_text_table(run: Run, models: dict[str, Score], base: Score | None) -> Markup:
    """Return loss and accuracy of each model, with their changes from the base where there is one."""
    losses = with_best([score.loss for score in models.values()], wording.loss, lowest=True)
    accuracies = with_best([score.accuracy for score in models.values()], wording.percent, lowest=False)
    head: list[Text] = ["Model", "Loss", "Accuracy"]
    columns = [[key(run.color_slot(name), name) for name in models], losses, accuracies]
    if base:
        others = [None if name == "base" else score for name, score in models.items()]
        columns.append(
            [number(score.loss - base.loss if score else None, wording.signed) for score in others]
        )
        head.append("Loss − base")
        if run.held_out and not run.held_out.per_character:  # accuracies of tokens of one tokenizer
            columns.append(
                [
                    number(score.accuracy - base.accuracy if score else None, wording.points)
                    for score in others
                ]
            )
            head.append("Accuracy − base")
    note = "The best is in bold; the difference of accuracies is in percentage points."
    return table("General text", head, [Row(list(cells)) for cells in zip(*columns, strict=True)], note=note)

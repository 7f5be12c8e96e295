"""The section on general text: what each arm forgot of the text that the domain is not made of."""

from __future__ import annotations

import math
from collections.abc import Mapping

from markupsafe import Markup

from clm_detour.figures import wording
from clm_detour.figures.table import Cell, Row, Text, number, with_best
from clm_detour.records.run import Score
from clm_detour.report.markup import Section, join, key, paragraph, side_by_side, table
from clm_detour.report.run import Run
from clm_detour.report.sections.held_out import ends_figure


def general_text_section(run: Run) -> Section | None:
    """Return the losses on `evaluate.general`, and their changes from the base."""
    general = run.held_out.general if run.held_out else None
    if general is None:
        return None
    models, source = general.totals, wording.listing(general.sources)
    if not models:
        nothing = paragraph(f"There is no held-out text of {source}, so nothing was measured.")
        return Section("general-text", "General text", nothing)
    base = models.get("base")
    caption = "Higher than at the start: the model has become worse at general text."
    title = "Loss on general text at the ends of the phases"
    phases = {id: scores.total for id, scores in general.phases.items() if scores.total}
    start = base if "base" not in run.arms else None
    ends = ends_figure(run, phases, "general-text-phases", title, caption, start)
    body = join(
        paragraph(introduction(source, models, general.unit)),
        side_by_side(*filter(None, [ends])),
        general_text_table(run, models, per_character=general.per_character),
    )
    return Section("general-text", "General text", body)


def introduction(source: str, models: Mapping[str, Score], unit: str) -> str:
    """Return what was measured, and how much detour, twin and control forgot."""
    text = (
        "Training on a domain costs some of what a model knew before. This is the masked loss on held-out "
        f"text of {source} in {unit}. That text does not count as text of the domain."
    )
    if "base" not in models:
        return text
    changes = {
        name: models[name].loss - models["base"].loss
        for name in ("detour", "twin", "control")
        if name in models and math.isfinite(models[name].loss - models["base"].loss)
    }
    if not changes:
        return text
    found = wording.listing([f"{wording.signed(change)} for {name}" for name, change in changes.items()])
    return f"{text} Its change from the base is {found}."


def general_text_table(run: Run, models: Mapping[str, Score], per_character: bool) -> Markup:
    """Return loss and accuracy of each model, with their changes from the base where there is one.

    Args:
        per_character: Whether tokenizers differ, so that accuracies cannot be compared with the base.
    """
    losses = with_best([score.loss for score in models.values()], wording.loss, lowest=True)
    accuracies = with_best([score.accuracy for score in models.values()], wording.percent, lowest=False)
    head: list[Text] = ["Model", "Loss", "Accuracy"]
    names = [key(run.color_slot(name), name) for name in models]
    columns: list[list[Text | Cell]] = [[*names], [*losses], [*accuracies]]
    note = "The best is in bold."
    if base := models.get("base"):
        others = [None if name == "base" else score for name, score in models.items()]
        losses_apart = [None if score is None else score.loss - base.loss for score in others]
        columns.append([number(change, wording.signed) for change in losses_apart])
        head.append("Loss − base")
        if not per_character:
            changes = [None if score is None else score.accuracy - base.accuracy for score in others]
            columns.append([number(change, wording.points) for change in changes])
            head.append("Accuracy − base")
            note += " The difference of accuracies is in percentage points."
    rows = [Row(list(cells)) for cells in zip(*columns, strict=True)]
    return table("General text", head, rows, note=note)

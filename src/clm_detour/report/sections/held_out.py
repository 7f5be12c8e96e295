"""The section on held-out text: each model on each source, and the end of every phase."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from clm_detour.figures import wording
from clm_detour.figures.axes import Values
from clm_detour.figures.dots import Dot, DotPlot
from clm_detour.figures.lines import Line, LineChart
from clm_detour.figures.table import Cell, Row, Text, number, with_best
from clm_detour.records.run import HeldOutRecord, Score, Scores
from clm_detour.report.curves import tokens_of
from clm_detour.report.markup import (
    Section,
    figure,
    folded,
    join,
    key,
    paragraph,
    side_by_side,
    sortable,
    table,
)
from clm_detour.report.run import Run
from clm_detour.report.sections.tasks import tasks_are_shown


@dataclass(frozen=True)
class Measure:
    """A part of a score.

    Args:
        read: Returns its value.
        write, write_change: Return the text of a value and of a difference.
        lowest: Whether low values are good.
    """

    read: Callable[[Score], float]
    write: Callable[[float], str]
    write_change: Callable[[float], str]
    lowest: bool


LOSS = Measure(lambda score: score.loss, wording.loss, wording.signed, lowest=True)
ACCURACY = Measure(lambda score: score.accuracy, wording.percent, wording.points, lowest=False)


def held_out_section(run: Run) -> Section | None:
    """Return tables and figures of the scores on held-out text."""
    held_out = run.held_out
    if not held_out or not held_out.models:
        return None
    if not held_out.totals:
        nothing = paragraph("There is no held-out text, so nothing was measured.")
        return Section("held-out", "Held-out text", nothing)
    models, sources = held_out.models, held_out.sources
    body = join(
        paragraph(introduction(held_out)),
        figures(run, held_out),
        sortable(loss_table(run, models, sources)),
        folded(
            "Accuracy, and changes from the base", accuracy_table(run, models, sources), summary_table(run)
        ),
        folded("Ends of the phases as a table", phases_table(run, held_out.phases)),
    )
    return Section("held-out", "Held-out text", body)


def introduction(held_out: HeldOutRecord) -> str:
    """Return how the scores were measured."""
    absent = (
        f" There is no held-out text of {wording.listing(held_out.unmeasured)}."
        if held_out.unmeasured
        else ""
    )
    loss = "Loss is the mean over the masked tokens, in nats"
    if held_out.per_character:
        loss = (
            "The run added tokens that the base does not have, so each is scored with its own tokenizer, and "
            "loss is given in nats per character of the masked tokens. Accuracies of tokens cannot be "
            "compared with the base"
        )
    return (
        f"No phase was trained on this text. {wording.percent(held_out.mask_rate, 0)} of its tokens are "
        f"masked, and each model predicts them from both sides. {loss}; accuracy is the share that a model's "
        f"first guess gets right.{absent}"
    )


def loss_table(run: Run, models: dict[str, Scores], sources: list[str]) -> Markup:
    """Return the losses of the models on the sources, with differences and numbers of tokens below."""
    rows = score_rows(run, models, sources, LOSS)
    rows.append(Row(["masked tokens", *(predicted(models, source) for source in (None, *sources))], "rest"))
    note = "Lower is better; the best of each column is in bold."
    if run.held_out and run.held_out.per_character:
        return table("Loss per character", ["Model", "All", *sources], rows, note=note)
    perplexities = [perplexity(scores.total) for scores in models.values()]
    blank = [Cell("", {"": None})] * (len(rows) - len(models))
    rows = [
        Row([*row.cells[:2], cell, *row.cells[2:]], row.kind)
        for row, cell in zip(rows, perplexities + blank, strict=True)
    ]
    note += " Perplexity is the exponential of the loss."
    return table("Loss", ["Model", "All", "Perplexity", *sources], rows, note=note)


def accuracy_table(run: Run, models: dict[str, Scores], sources: list[str]) -> Markup:
    """Return the accuracies of the models on the sources, with the differences below."""
    rows = score_rows(run, models, sources, ACCURACY)
    note = "Higher is better; the best of each column is in bold; the difference is in percentage points."
    return table("Accuracy", ["Model", "All", *sources], rows, note=note)


def score_rows(run: Run, models: dict[str, Scores], sources: list[str], measure: Measure) -> list[Row]:
    """Return a row for each model, with the best of each column marked, and one for detour minus twin."""
    columns: list[list[Cell]] = []
    changes: list[Cell] = []
    for source in (None, *sources):
        scores = {model: entry.of(source) for model, entry in models.items()}
        values = [None if score is None else measure.read(score) for score in scores.values()]
        columns.append(with_best(values, measure.write, measure.lowest))
        detour, twin = scores.get("detour"), scores.get("twin")
        change = measure.read(detour) - measure.read(twin) if detour and twin else None
        changes.append(number(change, measure.write_change))
    lines = zip(models, *columns, strict=True)
    rows = [Row([key(run.color_slot(model), model), *values]) for model, *values in lines]
    if {"detour", "twin"} <= models.keys():
        rows.append(Row(["detour − twin", *changes], "rest"))
    return rows


def perplexity(score: Score | None) -> Cell:
    """Return the cell of the exponential of a loss."""
    if score is None:
        return number(None, str)
    value = math.exp(score.loss) if score.loss < 700 else None
    return Cell(wording.perplexity(score.loss), {"": value})


def predicted(models: dict[str, Scores], source: str | None) -> Cell:
    """Return how many tokens were predicted: one number where it is the same for all models."""
    picked = [scores.of(source) for scores in models.values()]
    counts = sorted({score.predicted if score else 0 for score in picked})
    text = " to ".join(dict.fromkeys((wording.count(counts[0]), wording.count(counts[-1]))))
    return Cell(text, {"": counts[0] if len(counts) == 1 else None})


def figures(run: Run, held_out: HeldOutRecord) -> Markup:
    """Return losses by source (unless the first screen has them), their differences, and ends of phases."""
    shown = [loss_figure(run)] if tasks_are_shown(run) else []
    ends = {id: scores.total for id, scores in held_out.phases.items() if scores.total}
    caption = "A model that comes straight from causal training is not used to filling masks from both sides."
    shown.append(
        ends_figure(run, ends, "held-out-phases", "Held-out loss at the ends of the phases", caption)
    )
    if {"detour", "twin"} <= held_out.models.keys():
        shown.append(difference_figure(held_out))
    return side_by_side(*filter(None, shown))


def loss_figure(run: Run) -> Markup | None:
    """Return a dot plot with a row for each source and a dot for each model; None if nothing was measured."""
    held_out = run.held_out
    sources = [source for source in held_out.sources if source not in held_out.unmeasured] if held_out else []
    if not held_out or not sources:
        return None
    models = held_out.models
    rows = {
        source: [
            Dot(score.loss, model) if (score := scores.of(source)) else None
            for model, scores in models.items()
        ]
        for source in sources
    }
    label = f"Held-out loss of {', '.join(models)} on each source; the table has the values."
    plot = DotPlot(
        rows, run.color_slots(models), Values(f"loss in {held_out.unit} (lower is better)", "~r", ".3f")
    )
    return figure("held-out-loss", plot, label, "Held-out loss by source")


def difference_figure(held_out: HeldOutRecord) -> Markup | None:
    """Return a dot plot of the loss of the detour minus that of its twin, in the color of the better one."""
    detour, twin = held_out.models["detour"], held_out.models["twin"]
    pairs = {source: (detour.of(source), twin.of(source)) for source in held_out.sources}
    changes = {source: one.loss - other.loss for source, (one, other) in pairs.items() if one and other}
    changes = {source: value for source, value in changes.items() if math.isfinite(value)}
    if not changes:
        return None
    rows = {
        source: [Dot(value, "detour" if value < 0 else "twin", label=wording.signed(value))]
        for source, value in changes.items()
    }
    label = "Loss of detour minus loss of twin by source: "
    label += ", ".join(f"{source} {wording.signed(value)}" for source, value in changes.items())
    reach = 2 * max([abs(value) for value in changes.values()] + [1e-6])
    axis = Values(f"loss in {held_out.unit}: ← detour better   |   twin better →", "~r", "+.3f")
    better = {"detour": "detour", "twin": "twin"}
    plot = DotPlot(rows, better, axis, zero=True, reach=reach, legend=False)
    caption = (
        "In the color of the better one. There is one run of each, so no difference has a margin of error."
    )
    return figure("held-out-difference", plot, label, "Held-out loss, detour minus twin", caption)


def ends_figure(
    run: Run, phases: dict[str, Score], name: str, title: str, caption: str, start: Score | None = None
) -> Markup | None:
    """Return the losses at the ends of the phases of each arm; None if no arm has two points.

    Args:
        phases: The score at the end of each phase.
        start: The score of the model that the arms start from.
    """
    lines = []
    for arm, ids in run.arms.items():
        ends = [(run.start_token(id) + run.phases[id].tokens, phases[id]) for id in ids if id in phases]
        ends = [(0, start), *ends] if start else ends
        points = [(tokens, score.loss) for tokens, score in ends if math.isfinite(score.loss)]
        if len(points) > 1:
            lines.append(Line([tokens for tokens, _ in points], [loss for _, loss in points], arm))
    if not lines:
        return None
    unit = run.held_out.unit if run.held_out else "nats"
    axis = Values(f"held-out masked loss ({unit})", "~r", ".3f")
    arms = run.color_slots(line.name for line in lines)
    chart = LineChart(lines, arms, tokens_of(run, [*run.phases.values()]), axis, points=True)
    label = f"{title}, a line for each arm; the table has the values."
    return figure(name, chart, label, title, caption)


def phases_table(run: Run, phases: dict[str, Scores]) -> Markup | None:
    """Return the scores at the end of every phase, each indented under the phase before it."""
    if not phases:
        return None
    rows = []
    for id, scores in phases.items():
        depth = min(id.count("."), 4)
        text = Markup('<span class="depth-{}">{}</span>').format(depth, id.rsplit(".", 1)[-1])
        objective = run.phases[id].objective if id in run.phases else None
        total = scores.total
        loss = number(total.loss if total else None, wording.loss)
        accuracy = number(total.accuracy if total else None, wording.percent)
        arms = wording.listing(run.arms_of(id))
        rows.append(Row([Cell(text, {"": id}), (objective or wording.ABSENT).upper(), arms, loss, accuracy]))
    head: list[Text] = ["Phase", "Trained as", "In arms", "Loss", "Accuracy"]
    return table("Ends of the phases", head, rows, left={1, 2})


def summary_table(run: Run) -> Markup | None:
    """Return loss and accuracy of each model that was measured, and their changes from the base."""
    models = run.held_out.totals if run.held_out else {}
    if not run.held_out or not models:
        return None
    per_character = run.held_out.per_character
    losses = with_best([score.loss for score in models.values()], wording.loss, lowest=True)
    accuracies = with_best([score.accuracy for score in models.values()], wording.percent, lowest=False)
    names: list[Text | Cell] = [key(run.color_slot(name), name) for name in models]
    columns: list[list[Text | Cell]] = [names, [*losses], [*accuracies]]
    head: list[Text] = ["Model", "Loss", "Accuracy"]
    note = "The best is in bold."
    if base := models.get("base"):
        changes = [
            (score.loss - base.loss, None if per_character else score.accuracy - base.accuracy)
            if name != "base"
            else (None, None)
            for name, score in models.items()
        ]
        columns.insert(2, [number(loss, wording.signed) for loss, _ in changes])
        columns.append([number(accuracy, wording.points) for _, accuracy in changes])
        head[2:] = ["Loss − base", "Accuracy", "Accuracy − base"]
        note += " “− base” is the change from the base, of accuracy in points."
    rows = [Row(cells) for cells in zip(*columns, strict=True)]
    return table("Held-out masked language modeling", head, rows, note=note)

"""Held-out loss and accuracy: each model on each source, and the end of every phase."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from clm_detour.report import wording
from clm_detour.report.arms import arms_of, colour_slot
from clm_detour.report.dots import difference_bars, loss_dots
from clm_detour.report.markup import Section, figure, heading, join, key, paragraph, side_by_side
from clm_detour.report.records import HeldOut, Run, Score, Scores
from clm_detour.report.tables import Cell, Row, Text, number, table, with_best


@dataclass(frozen=True)
class Measure:
    """A figure of a score: how to read it, write it and its differences, and whether low is good."""

    read: Callable[[Score], float]
    write: Callable[[float], str]
    write_change: Callable[[float], str]
    lowest: bool


LOSS = Measure(lambda score: score.loss, wording.loss, wording.signed, lowest=True)
ACCURACY = Measure(lambda score: score.accuracy, wording.percent, wording.points, lowest=False)


def held_out_section(run: Run) -> Section | None:
    """Tables and figures of `evaluation/held_out.json`."""
    held_out = run.held_out
    if not held_out or not held_out.models:
        return None
    if not held_out.totals:
        return Section(
            "held-out", "Held-out text", paragraph("There is no held-out text: nothing was measured.")
        )
    models, sources = held_out.models, held_out.sources
    body = join(
        paragraph(introduction(held_out)),
        loss_table(run, models, sources),
        accuracy_table(run, models, sources),
        figures(run, models, [source for source in sources if source not in held_out.unmeasured]),
        trajectory(run, held_out.phases),
    )
    return Section("held-out", "Held-out text", body)


def introduction(held_out: HeldOut) -> str:
    """How it was measured."""
    absent = (
        f" There is no held-out text of {wording.listing(held_out.unmeasured)}."
        if held_out.unmeasured
        else ""
    )
    return (
        f"No phase was trained on this text. {wording.percent(held_out.mask_rate, 0)} of its tokens are masked, "
        "and each model predicts them from both sides. Loss is the mean over the masked tokens, in nats; "
        f"accuracy is the share that a model's first guess gets right.{absent}"
    )


def loss_table(run: Run, models: dict[str, Scores], sources: list[str]) -> Markup:
    """Models by sources, with the differences and the numbers of tokens below."""
    rows = rows_of(run, models, sources, LOSS)
    rows.append(Row(["masked tokens", *(predicted(models, source) for source in (None, *sources))], "rest"))
    perplexities = [perplexity(scores.total) for scores in models.values()]
    blank = [Cell("", {"": None})] * (len(rows) - len(models))
    rows = [
        Row([*row.cells[:2], perplexity, *row.cells[2:]], row.kind)
        for row, perplexity in zip(rows, perplexities + blank, strict=True)
    ]
    note = "Lower is better; best of each column in bold. Perplexity is e to the loss."
    return table("Loss", ["Model", "All", "Perplexity", *sources], rows, note=note)


def accuracy_table(run: Run, models: dict[str, Scores], sources: list[str]) -> Markup:
    """Models by sources, with the differences below."""
    rows = rows_of(run, models, sources, ACCURACY)
    note = "Higher is better; best of each column in bold; the difference is in points."
    return table("Accuracy", ["Model", "All", *sources], rows, note=note)


def rows_of(run: Run, models: dict[str, Scores], sources: list[str], measure: Measure) -> list[Row]:
    """A row for each model, the best of each column marked, and one for detour minus twin."""
    columns: list[list[Cell]] = []
    changes: list[Cell] = []
    for source in (None, *sources):
        scores = {model: pick(entry, source) for model, entry in models.items()}
        values = [None if score is None else measure.read(score) for score in scores.values()]
        columns.append(with_best(values, measure.write, measure.lowest))
        detour, twin = scores.get("detour"), scores.get("twin")
        change = measure.read(detour) - measure.read(twin) if detour and twin else None
        changes.append(number(change, measure.write_change))
    lines = zip(models, *columns, strict=True)
    rows = [Row([key(colour_slot(run, model), model), *values]) for model, *values in lines]
    if {"detour", "twin"} <= models.keys():
        rows.append(Row(["detour − twin", *changes], "rest"))
    return rows


def pick(scores: Scores, source: str | None) -> Score | None:
    """A source's score, or that of all text."""
    return scores.total if source is None else scores.by_source.get(source)


def perplexity(score: Score | None) -> Cell:
    """exp(loss)."""
    if score is None:
        return number(None, str)
    value = math.exp(score.loss) if score.loss < 700 else None
    return Cell(wording.perplexity(score.loss), {"": value})


def predicted(models: dict[str, Scores], source: str | None) -> Cell:
    """How many tokens were predicted: one number where it is the same for all models."""
    picked = [pick(scores, source) for scores in models.values()]
    counts = sorted({score.predicted if score else 0 for score in picked})
    text = " to ".join(dict.fromkeys((wording.count(counts[0]), wording.count(counts[-1]))))
    return Cell(text, {"": counts[0] if len(counts) == 1 else None})


def figures(run: Run, models: dict[str, Scores], sources: list[str]) -> Markup | None:
    """Losses, and detour against twin."""
    if not sources:
        return None
    drawings = [figure(loss_dots(run, models, sources), "Held-out loss by source", legend(run, models))]
    if {"detour", "twin"} <= models.keys():
        detour, twin = models["detour"].by_source, models["twin"].by_source
        pairs = {source: (detour.get(source), twin.get(source)) for source in sources}
        differences = {
            source: one.loss - other.loss for source, (one, other) in pairs.items() if one and other
        }
        differences = {source: value for source, value in differences.items() if math.isfinite(value)}
        drawing = difference_bars("detour", "twin", differences)
        drawings.append(
            figure(drawing, "Detour minus twin", "One run of each: no bar has a margin of error.")
        )
    return side_by_side(*drawings)


def legend(run: Run, models: dict[str, Scores]) -> Markup:
    """Names with their colours."""
    return Markup(", ").join(key(colour_slot(run, model), model) for model in models)


def trajectory(run: Run, phases: dict[str, Scores]) -> Markup | None:
    """The end of every phase, indented under the phase before it."""
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
        arms = wording.listing(arms_of(run, id))
        name = Cell(text, {"": id})
        rows.append(Row([name, (objective or wording.ABSENT).upper(), arms, loss, accuracy]))
    said = (
        "The same measure at the end of every phase. A model fresh from causal training is out of practice at "
        "filling masks from both sides; what counts is where it stands after the decay."
    )
    head: list[Text] = ["Phase", "Trained as", "In arms", "Loss", "Accuracy"]
    return join(heading("On the way"), paragraph(said), table("Ends of the phases", head, rows, left={1, 2}))

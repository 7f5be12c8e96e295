"""The section on what the models remember of their training data."""

from __future__ import annotations

import math
from collections.abc import Mapping

from markupsafe import Markup

from clm_detour.audit.tables import exposure_table, membership_table, name_of
from clm_detour.figures import wording
from clm_detour.figures.axes import Copies, Values
from clm_detour.figures.lines import Line, LineChart
from clm_detour.figures.parts import Switch
from clm_detour.figures.table import Table, Text
from clm_detour.records.audit import BASE, MASKS, AuditedModel, AuditRecord
from clm_detour.report.markup import (
    Section,
    figure,
    folded,
    heading,
    join,
    key,
    paragraph,
    side_by_side,
    table,
)
from clm_detour.report.run import Run


def memory_section(run: Run) -> Section | None:
    """Return the audit, if there is one."""
    found = run.audit
    if found is None:
        return None
    body = join(secrets(run, found), membership(run, found), *map(paragraph, found.notes))
    return Section("memory", "What the models remember", body) if body else None


def secrets(run: Run, found: AuditRecord) -> Markup | None:
    """Return the exposure of the secrets of canaries."""
    canaries = found.canaries
    made = exposure_table(found, lambda model: model_key(run, found, model))
    if canaries is None or made is None:
        return None
    inserted = sum(copies > 0 for copies in canaries.copies)
    most = math.log2(1 + found.settings.alternatives)
    text = (
        f"The training documents of {canaries.source} hold {wording.count(inserted)} canaries: made-up "
        "sentences with a random number as their secret. Someone who has the weights and knows the rest of "
        "the sentence can rank all numbers by their probability. Exposure says how much that helps to guess "
        "the secret: each bit halves the guesses. The secret is ranked among "
        f"{wording.count(found.settings.alternatives)} other numbers. By chance exposure is "
        f"{canaries.chance:.2f} bits on average, as with the sentences that stand in no document (0 copies); "
        f"more than {most:.1f} cannot be measured. {copies_read(found)}"
    )
    drawn = [
        exposure_figure(run, found, finals(run, found), "exposure", "Exposure at the end"),
        exposure_figure(
            run, found, before_last(run, found), "exposure-before", "Exposure before the last phase"
        ),
    ]
    return join(
        heading("Secrets"),
        paragraph(text),
        side_by_side(*filter(None, drawn)),
        folded("Exposure as a table", shown(made)),
    )


def copies_read(found: AuditRecord) -> str:
    """Return a sentence on how many of the copies the models read."""
    canaries = found.canaries
    assert canaries is not None
    total, parts = sum(canaries.copies), []
    for model in found.models:
        if model.last_of and model.id != found.base:
            share = sum(model.copies_read) / max(total, 1)
            parts.append(f"{name_of(found, model)} {wording.percent(share, 0)}")
    return (
        f"Of all copies the phases read: {wording.listing(parts)}; more than 100 % means several passes."
        if parts
        else ""
    )


def finals(run: Run, found: AuditRecord) -> dict[str, AuditedModel]:
    """Return the base and the model at the end of each arm, by name."""
    ends = {arm: found.final(arm) for arm in run.arms}
    others = {arm: model for arm, model in ends.items() if model and model.id != found.base}
    start = next((model for model in found.models if model.id == found.base), None)
    return others if start is None else {BASE: start, **others}


def before_last(run: Run, found: AuditRecord) -> dict[str, AuditedModel]:
    """Return the model before the last phase of each arm, by name."""
    ends = {arm: found.before_last(arm) for arm in run.arms}
    return {arm: model for arm, model in ends.items() if model}


def exposure_figure(
    run: Run, found: AuditRecord, models: Mapping[str, AuditedModel], name: str, title: str
) -> Markup | None:
    """Return exposure by number of copies, with a switch of the mask; None without models."""
    assert found.canaries is not None
    if not models:
        return None
    axis = Copies(sorted({*found.canaries.copies}), found.canaries.chance, "chance")
    lines = [
        Line(
            [axis.place(each.copies) for each in exposures],
            [each.mean for each in exposures],
            arm,
            [each.interval for each in exposures],
            option=mask,
        )
        for arm, model in models.items()
        for mask in MASKS
        for exposures in [found.exposures(model, mask)]
    ]
    chart = LineChart(
        lines,
        run.color_slots(models),
        axis,
        Values("exposure in bits, with 95 % intervals", "~g", ".2f"),
        switch=Switch("mask", "Mask", {mask: mask for mask in MASKS}),
        points=True,
        from_zero=True,
    )
    label = f"{title}: exposure of secrets of {wording.listing([*models])} against the number of copies."
    caption = "The line of chance is what a model has that never read the sentence."
    return figure(name, chart, label, title, caption)


def membership(run: Run, found: AuditRecord) -> Markup | None:
    """Return how well rows that were read are told from rows that were held out."""
    made = membership_table(found, lambda model: model_key(run, found, model))
    if made is None:
        return None
    settings = found.settings
    text = (
        "Someone who has the weights and a text can ask whether the model was trained on it. The attack uses "
        "the loss of the text: alone, or how much lower it is than that of a reference model. AUC is the "
        "probability that a text that was read scores higher than one that was held out. Against the base it "
        "tells what training added; against the twin, which read the same texts, what the arm remembers "
        "beyond its twin. The base came before this training, so its own AUC shows how much the two kinds "
        f"differ without it. A text is the first {wording.count(settings.tokens)} tokens of a row; under the "
        f"bidirectional mask {wording.percent(settings.mask_rate, 0)} of them are masked, "
        f"{settings.passes} times over. Texts with canaries are left out."
    )
    return join(heading("Membership"), paragraph(text), shown(made))


def model_key(run: Run, found: AuditRecord, model: AuditedModel) -> Text:
    """Return the name of a model with its color."""
    name = name_of(found, model)
    return key(run.color_slot(name), name)


def shown(made: Table) -> Markup:
    """Return a table of the audit."""
    return table(made.caption, made.head, made.rows, made.left, " ".join(made.notes))

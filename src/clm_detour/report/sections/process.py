"""The sections on what ran for how long, on which rows, and on the environment and the recipe."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from clm_detour.figures import wording
from clm_detour.figures.table import Cell, Row, Text, number
from clm_detour.records.phase import PhaseRecord
from clm_detour.report.markup import Section, join, paragraph, table
from clm_detour.report.run import Phase, Run

Ended = list[tuple[Phase, PhaseRecord]]

SCHEDULES = {"warmup_constant": "warm-up, constant", "one_minus_sqrt": "1 − √"}
FACTS = {"clm_detour": "clm-detour", "memory_gib": "memory, GiB"}


def process_section(run: Run) -> Section | None:
    """Return phases, rows, shares of the sources, times and models."""
    ended = [(phase, phase.end) for phase in run.phases.values() if phase.end]
    body = join(
        phases_table(ended) if ended else None,
        rows_table(ended) if ended else None,
        rows_paragraph(run),
        shares_table(ended) if ended else None,
        steps_table(run) if run.steps else None,
        models_paragraph(run) if run.exported else None,
    )
    return Section("process", "Phases and rows", body, folded=True) if body else None


def phases_table(ended: Ended) -> Markup:
    """Return the settings of each phase."""
    head: list[Text] = ["Phase", "Objective", "Mixture", "Schedule", "Peak rate", "Steps", "Tokens"]
    rows = []
    for phase, end in ended:
        steps = f"{wording.count(end.steps)} × {wording.count(end.batch_tokens)}"
        cells = [
            number(end.schedule.peak, "{:g}".format),
            Cell(steps, {"": end.steps, "tokens each": end.batch_tokens}),
            number(end.tokens, wording.count),
        ]
        schedule = SCHEDULES.get(end.schedule.name, end.schedule.name)
        rows.append(Row([phase.id, objective(phase, end), end.mixture, schedule, *cells]))
    note = (
        "Steps × tokens in a full step; the steps of a batch warm-up are smaller. Only phases that have "
        "ended are listed."
    )
    return table("Phases", head, rows, left={1, 2, 3}, note=note)


def rows_table(ended: Ended) -> Markup:
    """Return the rows that each phase read, and the devices."""
    head: list[Text] = ["Phase", "First row", "Next row", "On"]
    rows = []
    for phase, end in ended:
        positions = [number(row, wording.count) for row in (end.first_row, end.next_row)]
        rows.append(Row([phase.id, *positions, devices(end)]))
    note = (
        "Rows are positions in the mixture's stream. The next row is the first that the phase did not read."
    )
    return table("Rows", head, rows, left={3}, note=note)


def objective(phase: Phase, end: PhaseRecord) -> str:
    """Return CLM, or MLM with its mask rate."""
    name = (phase.objective or "").upper()
    of = " of words" if end.mask_unit == "word" else ""
    return f"{name} {wording.percent(end.mask_rate, 0)}{of}" if end.mask_rate else name


def devices(end: PhaseRecord) -> str:
    """Return devices and precision."""
    return f"{end.world_size} × {end.device}, {end.precision}"


def rows_paragraph(run: Run) -> Markup | None:
    """Return whether detour and twin read the same rows."""
    both = run.pairs("detour", "twin")
    if not both or not all(one.end and other.end for one, other in both):
        return None
    if run.same_rows("detour", "twin"):
        spans = [
            f"{' and '.join(dict.fromkeys((one.name, other.name)))}: rows {wording.count(one.end.first_row)} "
            f"to {wording.count(one.end.next_row - 1)} of mixture {one.end.mixture}"
            for one, other in both
            if one.end
        ]
        return paragraph(f"Detour and twin read the same rows in the same order. {'; '.join(spans)}.")
    return paragraph("Detour and twin did not read the same rows: compare the columns above.")


def shares_table(ended: Ended) -> Markup:
    """Return each source's share of the tokens, and the share that the mixture asks for."""
    sources = list(dict.fromkeys(source for _, end in ended for source in end.shares))
    rows = [Row([phase.id, *(share_cell(end, source) for source in sources)]) for phase, end in ended]
    note = "Observed / target, in %."
    return table("Shares of the sources", ["Phase", *sources], rows, note=note)


def share_cell(end: PhaseRecord, source: str) -> Cell:
    """Return the cell of the observed share and the target: `60.12 / 60.00`."""
    if source not in end.shares:
        return Cell(wording.ABSENT, {"observed": None, "target": None})
    share = end.shares[source]
    text = f"{100 * share.observed:.2f} / {100 * share.target:.2f}"
    return Cell(text, {"observed": share.observed, "target": share.target})


def steps_table(run: Run) -> Markup:
    """Return the wall time of each step, and its share of the whole."""
    total = sum(step.seconds or 0.0 for step in run.steps)
    rows = []
    for step in run.steps:
        share = (step.seconds or 0.0) / total if total else None
        rows.append(
            Row([step.title, number(step.seconds, wording.duration, "seconds"), number(share, share_bar)])
        )
    rows.append(Row(["All", number(total, wording.duration, "seconds"), Cell("", {"": None})], "rest"))
    return table("Time", ["Step", "Time", "Share"], rows, left={2})


def share_bar(share: float) -> Markup:
    """Return a bar as long as a share."""
    return Markup('<span class="share"><span style="width:{:.1f}%"></span></span>').format(100 * share)


def models_paragraph(run: Run) -> Markup:
    """Return where the models are."""
    folders = Markup(", ").join(Markup("<code>models/{}</code>").format(arm) for arm in run.exported)
    opening = Markup("Models in Hugging Face format, beside this page: {}.")
    return paragraph(opening.format(folders))


def provenance_section(run: Run) -> Section | None:
    """Return the environment and the recipe."""
    environment = environment_table(run.environment) if run.environment else None
    recipe = recipe_box(run.config_text) if run.config_text else None
    body = join(environment, recipe)
    return Section("provenance", "Environment and recipe", body, folded=True) if body else None


def environment_table(environment: dict[str, Any]) -> Markup:
    """Return versions and hardware in the order of the record."""
    long = Markup('<span class="long">{}</span>')
    rows = [Row([FACTS.get(name, name), long.format(fact(entry))]) for name, entry in environment.items()]
    return table("Environment", ["What", "Value"], rows, left={1})


def fact(entry: Any) -> str:
    """Return a value of the record in words."""
    if entry is None or entry == []:
        return wording.ABSENT
    if isinstance(entry, list):
        return ", ".join(str(part) for part in entry)
    return f"{entry:g}" if isinstance(entry, float) else str(entry)


def recipe_box(text: str) -> Markup:
    """Return the resolved config, folded."""
    opening = "<details><summary>The recipe as it ran (config.yaml)</summary>"
    box = '<pre tabindex="0">{}</pre></details>'
    return Markup(opening + box).format(text)

"""What ran for how long, on which rows, and with which shares of the sources."""

from __future__ import annotations

from markupsafe import Markup

from clm_detour.report import wording
from clm_detour.report.arms import pairs, same_rows
from clm_detour.report.markup import Section, join, paragraph
from clm_detour.report.records import Phase, PhaseEnd, Run
from clm_detour.report.tables import Cell, Row, Text, number, table

Ended = list[tuple[Phase, PhaseEnd]]

WORDS = {"warmup_constant": "warm-up, constant", "one_minus_sqrt": "1 − √"}


def process_section(run: Run) -> Section | None:
    """Phases, rows, shares, steps, models."""
    ended = [(phase, phase.end) for phase in run.phases.values() if phase.end]
    body = join(
        phases_table(ended) if ended else None,
        rows_table(ended) if ended else None,
        rows_paragraph(run),
        shares_table(ended) if ended else None,
        steps_table(run) if run.steps else None,
        models_paragraph(run) if run.exported else None,
    )
    return Section("process", "What ran", body) if body else None


def phases_table(ended: Ended) -> Markup:
    """What each phase was."""
    head: list[Text] = ["Phase", "Objective", "Mixture", "Schedule", "Peak rate", "Steps", "Tokens"]
    rows = [
        Row(
            [
                phase.id,
                objective(phase, end),
                end.mixture,
                WORDS.get(end.schedule.name, end.schedule.name),
                number(end.schedule.peak, "{:g}".format),
                Cell(
                    f"{wording.count(end.steps)} × {wording.count(end.batch_tokens)}",
                    {"": end.steps, "tokens each": end.batch_tokens},
                ),
                number(end.tokens, wording.count),
            ]
        )
        for phase, end in ended
    ]
    note = (
        "Steps × tokens in a full step (those of a batch warm-up are smaller); only phases that have ended."
    )
    return table("Phases", head, rows, left={1, 2, 3}, note=note)


def rows_table(ended: Ended) -> Markup:
    """On which rows each phase ran, and where."""
    head: list[Text] = ["Phase", "First row", "Next row", "On"]
    rows = [
        Row(
            [
                phase.id,
                number(end.first_row, wording.count),
                number(end.next_row, wording.count),
                where(end),
            ]
        )
        for phase, end in ended
    ]
    note = "Rows are positions in the mixture's stream, the next not included."
    return table("Rows", head, rows, left={3}, note=note)


def objective(phase: Phase, end: PhaseEnd) -> str:
    """CLM, or MLM with its rate."""
    name = (phase.objective or "").upper()
    return f"{name} {wording.percent(end.mask_rate, 0)}" if end.mask_rate else name


def where(end: PhaseEnd) -> str:
    """Devices and precision."""
    return f"{end.world_size} × {end.device}, {end.precision}"


def rows_paragraph(run: Run) -> Markup | None:
    """Whether detour and twin read the same."""
    both = pairs(run, "detour", "twin")
    if not both or not all(one.end and other.end for one, other in both):
        return None
    if same_rows(run, "detour", "twin"):
        spans = [
            f"{' and '.join(dict.fromkeys((one.name, other.name)))}: rows {wording.count(one.end.first_row)} "
            f"to {wording.count(one.end.next_row - 1)} of mixture {one.end.mixture}"
            for one, other in both
            if one.end
        ]
        return paragraph(f"Detour and twin read the same rows in the same order. {'; '.join(spans)}.")
    return paragraph("Detour and twin did not read the same rows: compare the columns above.")


def shares_table(ended: Ended) -> Markup:
    """Shares of tokens: what came, and what the mixture asks for."""
    sources = list(dict.fromkeys(source for _, end in ended for source in end.shares))
    rows = [Row([phase.id, *(share(end, source) for source in sources)]) for phase, end in ended]
    note = "Observed / target, in %."
    return table("Shares of the sources", ["Phase", *sources], rows, note=note)


def share(end: PhaseEnd, source: str) -> Cell:
    """60.12 / 60.00."""
    if source not in end.shares:
        return Cell(wording.ABSENT, {"observed": None, "target": None})
    target, observed = end.shares[source]
    return Cell(f"{100 * observed:.2f} / {100 * target:.2f}", {"observed": observed, "target": target})


def steps_table(run: Run) -> Markup:
    """Wall time of everything, with its share of the whole."""
    total = sum(step.seconds for step in run.steps)
    rows = [
        Row([step.title, number(step.seconds, wording.duration, "seconds"), number(step.seconds / total if total else None, share_bar)])
        for step in run.steps
    ]  # fmt: skip
    rows.append(Row(["All", number(total, wording.duration, "seconds"), Cell("", {"": None})], "rest"))
    return table("Time", ["Step", "Time", "Share"], rows, left={2})


def share_bar(share: float) -> Markup:
    """A bar as long as its share."""
    return Markup('<span class="share"><span style="width:{:.1f}%"></span></span>').format(100 * share)


def models_paragraph(run: Run) -> Markup:
    """Where the models are."""
    folders = Markup(", ").join(Markup("<code>models/{}</code>").format(arm) for arm in run.exported)
    opening = Markup("Models in Hugging Face form, beside this page: {}.")
    return paragraph(opening.format(folders))

"""What the sources hold, and what was dropped of them."""

from __future__ import annotations

from markupsafe import Markup

from clm_detour.report import wording
from clm_detour.report.markup import Section, join, paragraph
from clm_detour.report.records import Run
from clm_detour.report.tables import Cell, Row, Text, number, table

SPLITS = {"train": "training", "held_out": "held out"}


def data_section(run: Run) -> Section | None:
    """Documents, tokens, rows and drops of each source."""
    if not run.sources:
        return None
    rows = []
    for source, report in run.sources.items():
        for i, (name, split) in enumerate(report.splits.items()):
            first = source if i == 0 else Markup('<span class="unseen">{}</span>').format(source)
            counts = [number(count, wording.count) for count in (split.documents, split.tokens, split.rows)]
            full = number(split.fullness if split.rows else None, two_decimals)
            rows.append(Row([Cell(first, {"": source}), SPLITS.get(name, name), *counts, full]))
    head: list[Text] = ["Source", "Split", "Documents", "Tokens", "Rows", "Full"]
    text = (
        "Documents are packed into rows of a fixed length and never see each other. "
        "Full is the share of the rows' positions that hold text."
    )
    body = join(paragraph(text), table("Sources", head, rows, left={1}), dropped(run))
    return Section("data", "Data", body)


def two_decimals(share: float) -> str:
    """0.9911 -> '99.11 %'."""
    return wording.percent(share, 2)


def dropped(run: Run) -> Markup:
    """Documents left out, by reason."""
    rows = [
        Row([source, reason, number(count, wording.count)])
        for source, report in run.sources.items()
        for reason, count in report.dropped.items()
        if count
    ]
    if not rows:
        return paragraph("No document was dropped.")
    return table("Dropped documents", ["Source", "Reason", "Documents"], rows, left={1})

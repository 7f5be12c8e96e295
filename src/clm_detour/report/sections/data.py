"""What the sources hold, and what was dropped of them."""

from __future__ import annotations

from markupsafe import Markup

from clm_detour.report import wording
from clm_detour.report.markup import Section, join, paragraph
from clm_detour.report.records import Run
from clm_detour.report.tables import Row, Text, table

SPLITS = {"train": "training", "held_out": "held out"}


def data_section(run: Run) -> Section | None:
    """Documents, tokens, rows and drops of each source."""
    if not run.sources:
        return None
    rows = []
    for source, report in run.sources.items():
        for i, (name, split) in enumerate(report.splits.items()):
            first: Text = source if i == 0 else Markup('<span class="unseen">{}</span>').format(source)
            counts = [wording.count(number) for number in (split.documents, split.tokens, split.rows)]
            rows.append(Row([first, SPLITS.get(name, name), *counts, wording.percent(split.fullness, 2)]))
    head: list[Text] = ["Source", "Split", "Documents", "Tokens", "Rows", "Full"]
    text = (
        "Documents are packed into rows of a fixed length and never see each other. "
        "Full is the share of the rows' positions that hold text."
    )
    body = join(paragraph(text), table("Sources", head, rows, left={1}), dropped(run))
    return Section("data", "Data", body)


def dropped(run: Run) -> Markup:
    """Documents left out, by reason."""
    rows = [
        Row([source, reason, wording.count(number)])
        for source, report in run.sources.items()
        for reason, number in report.dropped.items()
        if number
    ]
    if not rows:
        return paragraph("No document was dropped.")
    return table("Dropped documents", ["Source", "Reason", "Documents"], rows, left={1})

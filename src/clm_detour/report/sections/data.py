"""The section on data: what the sources hold, and what was dropped from them."""

from __future__ import annotations

from markupsafe import Markup

from clm_detour.figures import wording
from clm_detour.figures.table import Cell, Row, Text, number
from clm_detour.report.markup import Section, join, paragraph, table
from clm_detour.report.run import Run

SPLITS = {"train": "training", "held_out": "held out"}


def data_section(run: Run) -> Section | None:
    """Return documents, tokens and rows of each source, and the documents that were dropped."""
    if not run.sources:
        return None
    rows = []
    for source, card in run.sources.items():
        for i, (name, split) in enumerate(card.splits.items()):
            first = source if i == 0 else Markup('<span class="unseen">{}</span>').format(source)
            counts = [number(count, wording.count) for count in (split.documents, split.tokens, split.rows)]
            full = number(split.fullness if split.rows else None, two_decimals)
            rows.append(Row([Cell(first, {"": source}), SPLITS.get(name, name), *counts, full]))
    head: list[Text] = ["Source", "Split", "Documents", "Tokens", "Rows", "Full"]
    text = (
        "Documents are packed into rows of a fixed length. Attention never crosses from one document to "
        "another. “Full” is the share of the rows' positions that hold text."
    )
    body = join(paragraph(text), table("Sources", head, rows, left={1}), added_tokens(run), dropped(run))
    return Section("data", "Data", body, folded=True)


def added_tokens(run: Run) -> Markup | None:
    """Return tokens per word with and without the tokens that the run added; None if it added none."""
    splits = [
        (source, card.splits["train"]) for source, card in run.sources.items() if "train" in card.splits
    ]
    rows = [
        Row(
            [
                source,
                number(split.tokens_per_word_before, "{:.3f}".format),
                number(split.tokens_per_word, "{:.3f}".format),
                number(split.tokens_per_word / split.tokens_per_word_before - 1, wording.percent),
            ]
        )
        for source, split in splits
        if split.tokens_per_word and split.tokens_per_word_before
    ]
    head: list[Text] = ["Source", "Without added tokens", "With them", "Change"]
    note = "Tokens per word of the training documents, where words are divided by white space."
    return table("Tokens per word", head, rows, note=note) if rows else None


def two_decimals(share: float) -> str:
    """Return a share in percent: 0.9911 -> '99.11 %'."""
    return wording.percent(share, 2)


def dropped(run: Run) -> Markup:
    """Return the documents that were dropped, by reason."""
    rows = [
        Row([source, reason, number(count, wording.count)])
        for source, card in run.sources.items()
        for reason, count in card.dropped.items()
        if count
    ]
    if not rows:
        return paragraph("No document was dropped.")
    return table("Dropped documents", ["Source", "Reason", "Documents"], rows, left={1})

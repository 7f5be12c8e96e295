"""The picture of a prepared source: a histogram of the lengths of its documents, and facts beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt

from clm_detour.figures.parts import Value, data_of
from clm_detour.figures.theme import INK, SOFT

WIDTH, HEIGHT, FACTS = 400, 200, 250  # pixels of the histogram, and the width of the facts
LINE = 16  # pixels of a fact


def histogram(
    title: str,
    bins: Sequence[Mapping[str, int]],
    row_length: int,
    median: float,
    facts: Sequence[tuple[str, str]],
) -> alt.HConcatChart:
    """Return the picture.

    Args:
        bins: {from, below, documents}: documents by their number of tokens.
        row_length: Tokens of a row.
        median: Median number of tokens.
        facts: What stands beside the histogram, with values.
    """
    rows: list[dict[str, Value]] = [
        {"from": max(1, one["from"]), "below": one["below"], "documents": one["documents"]} for one in bins
    ]
    lengths = alt.X(
        "from:Q",
        scale=alt.Scale(type="log", base=2, nice=False),
        axis=alt.Axis(title="tokens in a document", format=",d", labelOverlap=True, grid=False),
    )
    bars = (
        alt.Chart(data_of(rows, numbers=("from", "below", "documents")))
        .mark_bar(color=SOFT, binSpacing=1)
        .encode(lengths, alt.X2("below"), alt.Y("documents:Q", axis=alt.Axis(title="documents", tickCount=5)))
    )
    marks: list[dict[str, Value]] = [
        {"x": float(row_length), "mark": "a row"}, {"x": float(median), "mark": "median"}
    ]  # fmt: skip
    lines = (
        alt.Chart(data_of([mark for mark in marks if mark["x"]], numbers=("x",)))
        .mark_rule(color=INK, strokeWidth=1.5)
        .encode(
            x="x:Q",
            strokeDash=alt.StrokeDash(
                "mark:N", scale=alt.Scale(domain=["a row", "median"], range=[[1, 0], [2, 3]]),
                legend=alt.Legend(title=None, orient="top", symbolType="stroke"),
            ),
        )
    )  # fmt: skip
    plot = alt.layer(bars, lines, title=title, width=WIDTH, height=HEIGHT)
    return alt.hconcat(plot, facts_beside(facts), spacing=30)


def facts_beside(facts: Sequence[tuple[str, str]]) -> alt.LayerChart:
    """Return facts as lines of text: the name on the left, the value on the right."""
    rows: list[dict[str, Value]] = [
        {"place": float(place), "fact": fact, "value": value} for place, (fact, value) in enumerate(facts)
    ]
    base = alt.Chart(data_of(rows, numbers=("place",))).encode(
        alt.Y(
            "place:Q",
            axis=None,
            scale=alt.Scale(domain=[0, max(len(facts) - 1, 1)], reverse=True, nice=False),
        )
    )
    names = base.mark_text(align="left", limit=0.72 * FACTS).encode(text="fact:N", x=alt.value(0))
    values = base.mark_text(align="right").encode(text="value:N", x=alt.value(FACTS))
    return alt.layer(names, values, width=FACTS, height=LINE * max(len(facts) - 1, 1))

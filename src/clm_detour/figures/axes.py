"""Axes of charts: of values, of tokens and of layers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from clm_detour.figures.parts import Value, data_of
from clm_detour.figures.theme import LINE

UNITS = ((1e12, "trillions"), (1e9, "billions"), (1e6, "millions"), (1e3, "thousands"))
NAMED = 12  # layers at most that have their name on an axis
SHORT = {"embeddings": "emb.", "final_norm": "norm"}


@dataclass(frozen=True)
class Values:
    """An axis of values.

    Args:
        title: What the values are, with their unit.
        format: Format of its numbers, as d3 writes it: https://d3js.org/d3-format.
        precise: Format of the numbers beside the pointer; `format` if empty.
    """

    title: str
    format: str = "~g"
    precise: str = ""


@dataclass(frozen=True)
class Tokens:
    """An axis of tokens.

    Args:
        last, first: Its ends.
        borders: Where vertical lines stand.
        spans: Names above parts of the axis: (first token, last token, name).
        title: What the tokens are.
    """

    last: float
    first: float = 0
    borders: Sequence[float] = ()
    spans: Sequence[tuple[float, float, str]] = ()
    title: str = "tokens trained"

    @property
    def words(self) -> str:
        """The expression for a place beside the pointer."""
        return "format(datum.x, ',.0f') + ' tokens'"

    def encoding(self) -> alt.X:
        """Return the axis, in a unit that suits its end."""
        scale, word = next(((size, word) for size, word in UNITS if self.last >= size), (1.0, ""))
        axis = alt.Axis(
            title=f"{self.title} ({word})" if word else self.title,
            labelExpr=f"format(datum.value / {scale:.0f}, '~g')",
            tickCount=6,
            grid=False,
            labelOverlap=True,
        )
        return alt.X("x:Q", axis=axis, scale=alt.Scale(domain=[self.first, self.last], nice=False, padding=4))

    def layers(self) -> list[alt.Chart]:
        """Return the borders, and the names of the spans as far as there is room."""
        layers = []
        if self.borders:
            borders = alt.Chart(data_of([{"x": float(border)} for border in self.borders], ["x"]))
            layers.append(borders.mark_rule(color=LINE).encode(self.encoding()))
        if self.spans:
            whole = self.last - self.first
            rows: list[dict[str, Value]] = [
                {"x": (start + end) / 2, "share": (end - start) / whole, "span": name}
                for start, end, name in self.spans
            ]
            room = alt.ExprRef("datum.share * width - 2")
            names = alt.Chart(data_of(rows, ["x", "share"])).mark_text(baseline="bottom", dy=-4, limit=room)
            layers.append(names.encode(self.encoding(), y=alt.value(0), text="span:N"))
        return layers


@dataclass(frozen=True)
class Layers:
    """An axis of layers, at 0, 1, ...; not all of a deep network have their name on it."""

    names: Sequence[str]

    @property
    def words(self) -> str:
        """The expression for a place beside the pointer."""
        return f"'layer ' + {json.dumps([*self.names])}[datum.x]"

    def encoding(self) -> alt.X:
        """Return the axis."""
        step = math.ceil(len(self.names) / NAMED)
        short = json.dumps([SHORT.get(name, name) for name in self.names])
        axis = alt.Axis(
            title="layer",
            values=[*range(0, len(self.names), step)],
            labelExpr=f"{short}[datum.value]",
            grid=False,
        )
        ends = [0, max(len(self.names) - 1, 1)]
        return alt.X("x:Q", axis=axis, scale=alt.Scale(domain=ends, nice=False, padding=6))

    def layers(self) -> list[alt.Chart]:
        """Return nothing: layers have no borders."""
        return []

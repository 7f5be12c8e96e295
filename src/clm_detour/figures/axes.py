"""Axes of charts: of values, of tokens, of layers and of copies."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from clm_detour.figures.parts import Value, data_of
from clm_detour.figures.theme import LINE, SOFT

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
            room = alt.ExprRef("datum.share * width + 6")
            names = alt.Chart(data_of(rows, ["x", "share"])).mark_text(
                baseline="bottom", dy=-4, fontSize=10, limit=room
            )
            layers.append(names.encode(self.encoding(), y=alt.value(0), text="span:N"))
        return layers


@dataclass(frozen=True)
class Layers:
    """An axis of layers, or of other things in order, at 0, 1, ...; if they are many, not all are named."""

    names: Sequence[str]
    title: str = "layer"

    @property
    def words(self) -> str:
        """The expression for a place beside the pointer."""
        return f"'{self.title} ' + {json.dumps([*self.names])}[datum.x]"

    def encoding(self) -> alt.X:
        """Return the axis."""
        step = math.ceil(len(self.names) / NAMED)
        short = json.dumps([SHORT.get(name, name) for name in self.names])
        axis = alt.Axis(
            title=self.title,
            values=[*range(0, len(self.names), step)],
            labelExpr=f"{short}[datum.value]",
            grid=False,
        )
        ends = [0, max(len(self.names) - 1, 1)]
        return alt.X("x:Q", axis=axis, scale=alt.Scale(domain=ends, nice=False, padding=6))

    def layers(self) -> list[alt.Chart]:
        """Return nothing: layers have no borders."""
        return []


@dataclass(frozen=True)
class Copies:
    """A logarithmic axis of numbers of copies; 0 stands one doubling before the smallest other number.

    Args:
        counts: The numbers, ascending.
        level: Value at which a horizontal line stands.
        name: What the line is called.
    """

    counts: Sequence[int]
    level: float
    name: str

    def place(self, copies: int) -> float:
        """Return where a number stands."""
        return math.log2(copies) if copies else self._zero

    @property
    def _zero(self) -> float:
        return math.log2(min((count for count in self.counts if count), default=2)) - 1

    @property
    def words(self) -> str:
        """The expression for a place beside the pointer."""
        return f"{self._number('datum.x')} + ' copies'"

    def encoding(self) -> alt.X:
        """Return the axis."""
        places = [self.place(count) for count in self.counts]
        axis = alt.Axis(
            title="copies in the data",
            values=places,
            labelExpr=self._number("datum.value"),
            labelOverlap=True,
            grid=False,
        )
        ends = [min(places, default=0), max(places, default=1)]
        return alt.X("x:Q", axis=axis, scale=alt.Scale(domain=ends, nice=False, padding=8))

    def layers(self) -> list[alt.Chart]:
        """Return the horizontal line with its name."""
        data = data_of([{"y": self.level, "name": self.name}], ["y"])
        base = alt.Chart(data).encode(y=alt.Y("y:Q", title=None))
        words = base.mark_text(align="right", dy=-6, fontSize=10, color=SOFT)
        return [
            base.mark_rule(color=SOFT, strokeDash=[2, 2]),
            words.encode(x=alt.value("width"), text="name:N"),
        ]

    def _number(self, place: str) -> str:
        """Return the expression for the number of copies at a place, as text."""
        number = f"format(round(pow(2, {place})), ',')"
        return f"({place} <= {self._zero} ? '0' : {number})" if 0 in self.counts else number

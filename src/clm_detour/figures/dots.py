"""Dot plots: rows with a dot for each group, intervals as lines, and a line at zero for differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from clm_detour.figures.axes import Values
from clm_detour.figures.parts import (
    Value,
    color_of,
    data_of,
    legend_of,
    quoted,
    shape_of,
    with_choice,
)
from clm_detour.figures.theme import INK

ROW, BETWEEN = 16, 12  # pixels of a dot's row, and between groups of them


@dataclass(frozen=True)
class Dot:
    """A value with its interval, if there is one.

    Args:
        name: What the value is of: an entry of the plot's legend.
        singles: Name of a measurement, such as a seed -> its value; `value` is their mean.
        label: Text beside the dot.
    """

    value: float
    name: str
    interval: tuple[float, float] | None = None
    singles: Mapping[str, float] = field(default_factory=dict)
    label: str = ""

    def rows(self, row: str) -> list[dict[str, Value]]:
        """Return the value and the single measurements as data."""
        shared: dict[str, Value] = {"row": row, "name": self.name}
        low, high = self.interval or (math.nan, math.nan)
        mean: dict[str, Value] = {"value": self.value, "low": low, "high": high, "label": self.label}
        singles: list[dict[str, Value]] = [
            {**shared, "single": single, "value": value} for single, value in self.singles.items()
        ]
        return [{**shared, "single": "", **mean}, *singles]


@dataclass(frozen=True)
class DotPlot:
    """Dots in rows, from top to bottom.

    Args:
        rows: Name of a row -> its dots, or None for what was not measured.
        entries: Name of a dot -> its slot of `theme.LOOKS`. If all are arms, the page's chips show and hide
            them.
        zero: Whether there is a line at zero.
        reach: The axis ends at plus and minus this value; None to leave it to the dots.
        title: Lines above the plot.
        single: What a single measurement is.
        legend: Whether the plot has a legend.
    """

    rows: Mapping[str, Sequence[Dot | None]]
    entries: Mapping[str, str]
    x: Values
    zero: bool = False
    reach: float | None = None
    title: str = ""
    single: str = "seed"
    legend: bool = True

    def draw(self) -> alt.LayerChart:
        """Return the plot."""
        dots = [(row, dot) for row, dots in self.rows.items() for dot in dots]
        rows = [row for name, dot in dots if dot and math.isfinite(dot.value) for row in dot.rows(name)]
        places = max((sum(dot is not None for dot in dots) for dots in self.rows.values()), default=1)
        chart: Any = alt.layer(
            *([self._zero()] if self.zero else []),
            *self._layers(places > 1, any(row["single"] for row in rows)),
            data=data_of(rows, numbers=("value", "low", "high")),
            height=len(self.rows) * (ROW * places + BETWEEN),
            **({"title": alt.Title(self.title.split("\n"))} if self.title else {}),
        )
        return with_choice(chart, self.entries) if self.legend else chart

    def _zero(self) -> alt.Chart:
        """Return the line at zero."""
        return alt.Chart(alt.InlineData(values=[{}])).mark_rule(strokeWidth=0.8).encode(x=alt.datum(0))

    def _layers(self, aside: bool, singles: bool) -> list[alt.Chart]:
        """Return intervals, single measurements, values and labels.

        Args:
            aside: Whether the dots of a row stand below each other, so that equal values do not hide each
                other.
            singles: Whether there are single measurements.
        """
        ends = [] if self.reach is None else [-self.reach, self.reach]
        scale = alt.Scale(zero=False, **({"domain": ends, "nice": False} if ends else {"padding": 14}))
        labels = f"format(datum.value, {quoted(self.x.format)})"
        axis = alt.Axis(title=self.x.title, labelExpr=labels, tickCount=5, labelOverlap=True)
        precise = self.x.precise or self.x.format
        tips = [alt.Tooltip("row:N", title=" "), alt.Tooltip("name:N", title="of")]
        value = alt.Tooltip("value:Q", title="value", format=precise)
        legend = legend_of(self.entries, room=220) if self.legend else None
        offset: dict[str, Any] = {"yOffset": alt.YOffset("name:N", scale=alt.Scale(domain=[*self.entries]))}
        base = alt.Chart().encode(
            alt.X("value:Q", scale=scale, axis=axis),
            alt.Y(
                "row:N",
                sort=[*self.rows],
                axis=alt.Axis(title=None),
                scale=alt.Scale(type="band"),
            ),
            color=color_of(self.entries, legend),
            **(offset if aside else {}),
        )
        means, layers = base.transform_filter("!isValid(datum.single)"), []
        dots = [dot for dots in self.rows.values() for dot in dots if dot]
        if any(dot.interval for dot in dots):
            reaches = means.transform_filter("isValid(datum.low)")
            layers.append(reaches.mark_rule(strokeWidth=1.6, clip=True).encode(x="low:Q", x2="high:Q"))
        shape = shape_of(self.entries, legend)
        if singles:
            single = base.transform_filter("isValid(datum.single)").encode(shape=shape)
            seen = [*tips, alt.Tooltip("single:N", title=self.single), value]
            layers.append(single.mark_point(opacity=0.45, size=45, clip=True).encode(tooltip=seen))
            bar = means.mark_tick(thickness=3, size=ROW - 4, clip=True)
            layers.append(bar.encode(tooltip=[*tips, alt.Tooltip("value:Q", title="mean", format=precise)]))
        else:
            layers.append(means.mark_point(size=60, clip=True).encode(shape=shape, tooltip=[*tips, value]))
        side: dict[str, Any] = {
            "align": alt.ExprRef("datum.value < 0 ? 'right' : 'left'"),
            "dx": alt.ExprRef("datum.value < 0 ? -8 : 8"),
        }
        if any(dot.label for dot in dots):
            layers.append(means.mark_text(**side).encode(text="label:N", color=alt.ColorValue(INK)))
        return layers

"""Charts of lines over tokens, layers or copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from clm_detour.figures.axes import Copies, Layers, Tokens, Values
from clm_detour.figures.figure import HOVER
from clm_detour.figures.parts import (
    Switch,
    Value,
    color_of,
    dash_of,
    data_of,
    legend_of,
    quoted,
    shape_of,
    with_choice,
)
from clm_detour.figures.theme import LOOKS

SMOOTHING = {"off": 0, "little": 2, "medium": 5, "strong": 15}  # neighbors on each side in a running mean
SMOOTHED = "smoothing"  # name of the parameter


@dataclass(frozen=True)
class Line:
    """A line through points; NaN leaves a gap.

    A page holds every point, so lines of more than some hundred points are to be thinned before.

    Args:
        name: What the line is of: an entry of the chart's legend. Several lines may have one name.
        band: Lower and upper end of an interval at each point, or None where it is not known.
        part: Which part of what `name` says, such as a phase; running means do not cross it.
        option: Option of the chart's switch under which the line is shown.
    """

    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    name: str
    band: Sequence[tuple[float, float] | None] = ()
    part: str = ""
    option: str = ""

    def rows(self) -> list[dict[str, Value]]:
        """Return the points."""
        names: dict[str, Value] = {"name": self.name, "part": self.part, "option": self.option}
        shared = {key: name for key, name in names.items() if name}
        points = zip(self.x, self.y, strict=True)
        rows: list[dict[str, Value]] = [{"x": float(x), "y": float(y), **shared} for x, y in points]
        for row, pair in zip(rows, self.band, strict=bool(self.band)):
            row["low"], row["high"] = pair or (math.nan, math.nan)
        return rows


@dataclass(frozen=True)
class LineChart:
    """Lines over tokens, layers or copies.

    Args:
        entries: Name of a line -> its slot of `theme.LOOKS`. If all are arms, the page's chips show and hide
            them.
        y: The axis of the values, or that of each option of `switch`. Its title stands above the chart.
        switch: Choice of lines by their `option`.
        points: Whether each point has a marker.
        smoothing: A level of `SMOOTHING` for a running mean over neighboring points, beside the pale line of
            all points; empty for no running mean. The page has a menu of levels.
        from_zero: Whether the axis of values begins at zero.
        legend: Title of the legend; None for no legend.
        height: In pixels, without axes and legend.
    """

    lines: Sequence[Line]
    entries: Mapping[str, str]
    x: Tokens | Layers | Copies
    y: Values | Mapping[str, Values]
    switch: Switch | None = None
    points: bool = False
    smoothing: str = ""
    from_zero: bool = False
    legend: str | None = ""
    height: int = 230

    def draw(self) -> alt.LayerChart:
        """Return the chart."""
        rows = [row for line in self.lines for row in line.rows()]
        title = alt.ExprRef(self._of_option(lambda axis: axis.title))
        chart: Any = alt.layer(
            *self.x.layers(),
            *self._layers({key for row in rows for key, value in row.items() if is_known(value)}),
            data=data_of(rows, numbers=("x", "y", "low", "high")),
            height=self.height,
            title=alt.Title(text=title),
        )
        parameters: list[alt.Parameter] = []
        if self.switch:
            parameters.append(self.switch.parameter())
            chart = chart.transform_filter(f"datum.option == {self.switch.name}")
        if self.smoothing:
            menu = alt.binding_select(options=[*SMOOTHING], name="Smoothing: ")
            parameters.append(alt.param(name=SMOOTHED, value=self.smoothing, bind=menu))
        chart = chart.add_params(*parameters)
        return chart if self.legend is None else with_choice(chart, self.entries)

    def _of_option(self, read: Callable[[Values], str]) -> str:
        """Return an expression for a text of the axis of values, which may depend on the switch."""
        axes = self.y
        if isinstance(axes, Values):
            return quoted(read(axes))
        assert self.switch is not None
        return self.switch.chosen({option: read(axes[option]) for option in self.switch.options})

    def _layers(self, fields: set[str]) -> list[alt.Chart]:
        """Return bands, lines, markers and the layer for the pointer, of data with these fields."""
        legend = self._legend()
        labels = f"format(datum.value, {self._of_option(lambda axis: axis.format)})"
        axis = alt.Axis(title=None, tickCount=5, labelExpr=labels)
        parts = ["part"] if "part" in fields else []
        base = alt.Chart().encode(
            self.x.encoding(),
            alt.Y("y:Q", scale=alt.Scale(zero=self.from_zero), axis=axis),
            color=color_of(self.entries, legend),
            detail=[f"{part}:N" for part in parts],
        )
        layers = []
        if "low" in fields:
            layers.append(base.mark_area(opacity=0.15, clip=True).encode(y="low:Q", y2="high:Q"))
        if self.points:
            # One layer for each line: dashes from a scale would cut up the markers of the legend.
            layers += [
                base.mark_line(clip=True, strokeDash=[*LOOKS[slot].dash]).transform_filter(is_named(name))
                for name, slot in self.entries.items()
            ]
            base = base.encode(shape=shape_of(self.entries, legend))
            return [*layers, base.mark_point(clip=True, size=32), self._hover(base, fields)]
        strokes = base.encode(strokeDash=dash_of(self.entries, legend))
        if self.smoothing:
            layers.append(base.mark_line(strokeWidth=0.8, opacity=0.35, clip=True))
            strokes = smoothed(strokes, ["name", *parts]).encode(y="mean:Q")
        layers.append(strokes.mark_line(clip=True))
        return [*layers, self._hover(base, fields)]

    def _legend(self) -> alt.Legend | None:
        """Return the legend: markers or pieces of lines, above the names of an axis of tokens."""
        if self.legend is None:
            return None
        lines: dict[str, Any] = {} if self.points else {"symbolType": "stroke", "symbolSize": 500}
        named = isinstance(self.x, Tokens) and self.x.spans
        return legend_of(self.entries, title=self.legend or None, offset=22 if named else 8, **lines)

    def _hover(self, base: alt.Chart, fields: set[str]) -> alt.Chart:
        """Return invisible points, of which the one next to the pointer is shown with its values."""
        style = self._of_option(lambda axis: axis.precise or axis.format)
        words = {"place": self.x.words, "value": f"format(datum.y, {style})"}
        tips = [alt.Tooltip("name:N", title=self.legend or "line"), alt.Tooltip("place:N", title="at")]
        tips.append(alt.Tooltip("value:N", title="value"))
        if "part" in fields:
            tips.insert(1, alt.Tooltip("part:N", title="phase"))
        if "low" in fields:
            ends = " + ' to ' + ".join(f"format(datum.{end}, {style})" for end in ("low", "high"))
            words["interval"] = f"isValid(datum.low) ? {ends} : 'not known'"
            tips.append(alt.Tooltip("interval:N", title="95 % interval"))
        near = alt.selection_point(
            name=HOVER, nearest=True, on="pointermove", clear="pointerout", empty=False
        )
        points = base.transform_filter("isValid(datum.y)").transform_calculate(**words)
        opacity = alt.condition(near, alt.value(1), alt.value(0))
        return (
            points.mark_point(size=60, clip=True)
            .encode(opacity=opacity, tooltip=tips)
            .add_params(near)
            .properties(name=HOVER)
        )


def smoothed(chart: alt.Chart, groups: Sequence[str]) -> alt.Chart:
    """Return a chart with the field `mean`, the running mean of the level that is chosen."""
    choice = "datum.y"
    for level, reach in SMOOTHING.items():
        if reach:
            named: dict[str, Any] = {"as": f"mean_{level}"}  # a word of Python
            mean = alt.WindowFieldDef(op="mean", field="y", **named)
            chart = chart.transform_window([mean], frame=[-reach, reach], groupby=[*groups])
            choice = f"{SMOOTHED} == '{level}' ? datum.mean_{level} : ({choice})"
    return chart.transform_calculate(mean=f"isValid(datum.y) ? {choice} : null")


def is_known(value: Value) -> bool:
    """Return whether a value is a text or a finite number."""
    return isinstance(value, str) or (value is not None and math.isfinite(value))


def is_named(name: str) -> str:
    """Return the condition that a point belongs to a line of this name."""
    return f"datum.name == {quoted(name)}"

"""Heat maps of the similarity of layers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt

from clm_detour.figures.axes import NAMED, SHORT
from clm_detour.figures.parts import Switch, Value, data_of
from clm_detour.figures.theme import SHADES

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True)
class HeatMap:
    """CKA of all layers of one model with all layers of another; the first layers are at the bottom left.

    Args:
        matrices: Option of the switch -> a row for each layer of the first model, a column for each layer of
            the second. All have one scale of shades, which begins at `lowest_of(matrices)` and ends at 1.
        rows, columns: Names of the layers.
        x_title, y_title: What columns and rows are.
        switch: Choice of a matrix; None for a single one.
        height: In pixels.
    """

    matrices: Mapping[str, Matrix]
    rows: Sequence[str]
    columns: Sequence[str]
    x_title: str
    y_title: str
    switch: Switch | None = None
    height: int = 280

    def draw(self) -> alt.Chart:
        """Return the map with its scale."""
        rows: list[dict[str, Value]] = [
            {"x": column, "y": row, "cka": value, "option": option}
            for option, matrix in self.matrices.items()
            for row, values in enumerate(matrix)
            for column, value in enumerate(values)
        ]
        lowest = lowest_of([*self.matrices.values()])
        steps = [lowest + (1 - lowest) * place / len(SHADES) for place in range(1, len(SHADES))]
        legend = alt.Legend(
            title="similarity (CKA)", type="gradient", orient="top", gradientLength=220, format=".2f",
            values=steps[1::2],
        )  # fmt: skip
        shades = alt.Color(
            "cka:Q", scale=alt.Scale(type="threshold", domain=steps, range=[*SHADES]), legend=legend
        )
        tips = [
            alt.Tooltip("row:N", title=self.y_title),
            alt.Tooltip("column:N", title=self.x_title),
            alt.Tooltip("cka:Q", title="similarity (CKA)", format=".3f"),
        ]
        names = {
            name: f"{json.dumps([*layers])}[datum.{place}]"
            for name, place, layers in (("row", "y", self.rows), ("column", "x", self.columns))
        }
        chart = (
            alt.Chart(data_of(rows, numbers=("x", "y", "cka")), height=self.height)
            .transform_filter("isValid(datum.cka)")
            .transform_calculate(**names)
            .mark_rect()
            .encode(
                alt.X("x:O", axis=layer_axis(self.columns, self.x_title)),
                alt.Y("y:O", axis=layer_axis(self.rows, self.y_title), sort="descending"),
                color=shades,
                tooltip=tips,
            )
        )
        if self.switch is None:
            return chart
        return chart.transform_filter(f"datum.option == {self.switch.name}").add_params(
            self.switch.parameter()
        )


def layer_axis(layers: Sequence[str], title: str) -> alt.Axis:
    """Return an axis of layers; not all of a deep network have their name on it."""
    short = json.dumps([SHORT.get(name, name) for name in layers])
    places = [*range(0, len(layers), math.ceil(len(layers) / NAMED))]
    return alt.Axis(title=title, values=places, labelExpr=f"{short}[datum.value]", labelAngle=0)


def lowest_of(matrices: Sequence[Matrix]) -> float:
    """Return a round number at or below every value, for the scale of several heat maps."""
    values = [value for matrix in matrices for row in matrix for value in row if not math.isnan(value)]
    return min(max(math.floor(10 * min(values, default=0.0)) / 10, -0.5), 0.9)

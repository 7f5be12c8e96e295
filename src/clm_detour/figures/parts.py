"""Parts that charts share: their data, the looks of their entries, and switches between sets of data."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from clm_detour.figures.theme import ARMS, looks

Value = str | float | None
LETTER, SYMBOL = 7, 34  # pixels of a letter of a legend, and of the space beside a name


@dataclass(frozen=True)
class Switch:
    """A choice between sets of data, of which a chart shows one; the page has buttons for it.

    Args:
        name: Name of the chart's parameter.
        label: What stands before the buttons.
        options: Value -> text of its button; files are written for each value.
    """

    name: str
    label: str
    options: Mapping[str, str]

    def parameter(self) -> alt.Parameter:
        """Return the parameter with its buttons; the first option is chosen."""
        names = list(self.options)
        buttons = alt.binding_radio(options=names, labels=list(self.options.values()), name=f"{self.label}: ")
        return alt.param(name=self.name, value=names[0], bind=buttons)

    def chosen(self, values: Mapping[str, str]) -> str:
        """Return an expression for the value that belongs to the chosen option."""
        last, *others = reversed(self.options)
        expression = quoted(values[last])
        for option in others:
            expression = f"{self.name} == {quoted(option)} ? {quoted(values[option])} : ({expression})"
        return expression


def quoted(text: str) -> str:
    """Return a text for an expression of Vega."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def data_of(rows: Sequence[Mapping[str, Value]], numbers: Collection[str]) -> alt.InlineData:
    """Return rows as data, in CSV, which is the shortest. Numbers are rounded to six digits.

    Args:
        rows: Field -> value; a number that is not finite is left out.
        numbers: The fields that hold numbers.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([text_of(row.get(name)) for name in names] for row in rows)
    parse = {name: "number" if name in numbers else "string" for name in names}
    return alt.InlineData(values=out.getvalue(), format=alt.CsvDataFormat(type="csv", parse=parse))


def text_of(value: Value) -> str:
    """Return a value for CSV; nothing for what is not a finite number."""
    if isinstance(value, str):
        return value
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def color_of(
    entries: Mapping[str, str], legend: bool = True, title: str | None = None, offset: int = 8
) -> alt.Color:
    """Return the colors of the field `name`.

    Args:
        entries: Name -> slot of `theme.LOOKS`.
        offset: Pixels between legend and plot.
        legend: Whether the names stand above the chart, in as many columns as there is room for.
    """
    longest = max(map(len, entries), default=1)
    columns = f"max(1, floor(width / {LETTER * longest + SYMBOL}))"
    above = alt.Legend(
        orient="top", title=title, columns=alt.ExprRef(columns), symbolOpacity=1, offset=offset
    )
    return alt.Color("name:N", scale=scale_of(entries, "light"), legend=above if legend else None)


def shape_of(entries: Mapping[str, str], legend: bool = True) -> alt.Shape:
    """Return the markers of the field `name`."""
    return alt.Shape("name:N", scale=scale_of(entries, "shape"), **hidden(legend))


def dash_of(entries: Mapping[str, str], legend: bool = True) -> alt.StrokeDash:
    """Return the dashes of the field `name`."""
    return alt.StrokeDash("name:N", scale=scale_of(entries, "dash"), **hidden(legend))


def hidden(legend: bool) -> dict[str, Any]:
    """Return the argument that leaves a legend out."""
    return {} if legend else {"legend": None}


def scale_of(entries: Mapping[str, str], part: str) -> alt.Scale:
    """Return the scale from names to a part of their looks."""
    values = [getattr(look, part) for look in looks([*entries.values()])]
    return alt.Scale(
        domain=[*entries], range=[list(value or (1, 0)) if part == "dash" else value for value in values]
    )


def is_of_arms(entries: Mapping[str, str]) -> bool:
    """Return whether all entries are arms in their own colors."""
    return all(slot in ARMS and (name == slot or slot.startswith("other-")) for name, slot in entries.items())


def arms_parameter(names: Iterable[str]) -> alt.Parameter:
    """Return the parameter `arms`, a list of the arms that are shown, which the page's chips set."""
    return alt.param(name="arms", value=[*names])


ARM_IS_SHOWN = "indexof(arms, datum.name) >= 0"

"""Forest plots: a strip for each effect, with its interval, single measurements and a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from clm_detour.figures.parts import Value, data_of
from clm_detour.figures.theme import INK, LINE, LOOKS, SOFT

ROW = 46  # pixels of a row: a line of text, and the strip below it
TEXT, TOP, MEAN, SINGLES, BOTTOM = 0.25, 0.44, 0.6, 0.81, 0.96  # places in a row, as shares of its height
WORDS = 190  # pixels for the words on the right
TICKS = (0, *(sign * step * 10**power for power in range(6) for step in (1, 3) for sign in (1, -1)))
FIELDS = ("value", "low", "high", "bound", "text", "top", "mean", "singles", "bottom")


@dataclass(frozen=True)
class Effect:
    """An effect, in units of the smallest effect of interest.

    Args:
        name: Stands above the strip, on the left.
        words: Verdict, on the right.
        slot: Color and marker, a slot of `theme.LOOKS`.
        bound: Effects from minus to plus this value count as none; the strip is shaded there.
        interval: None where only the single measurements are shown.
        singles: Name of a measurement, such as a seed -> its effect.
        detail: The effect in its own unit, beside the pointer.
    """

    name: str
    words: str
    slot: str
    bound: float
    value: float
    interval: tuple[float, float] | None = None
    singles: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""

    @property
    def ends(self) -> list[float]:
        """All values that the axis must hold."""
        return [-self.bound, self.bound, *(self.interval or ()), *self.singles.values()]

    def rows(self, place: int) -> list[dict[str, Value]]:
        """Return the effect and its single measurements as data; `place` is its row, from 0 on."""
        low, high = self.interval or (math.nan, math.nan)
        heights = {"text": TEXT, "top": TOP, "mean": MEAN, "singles": SINGLES, "bottom": BOTTOM}
        shared: dict[str, Value] = {"name": self.name, "slot": self.slot}
        shared |= {key: place + share for key, share in heights.items()}
        whole: dict[str, Value] = {
            "single": "", "words": self.words, "detail": self.detail, "bound": self.bound,
            "value": math.nan if self.interval is None else self.value, "low": low, "high": high,
        }  # fmt: skip
        singles: list[dict[str, Value]] = [
            {**shared, "single": single, "value": value} for single, value in self.singles.items()
        ]
        return [{**shared, **whole}, *singles]


@dataclass(frozen=True)
class ForestPlot:
    """Effects from top to bottom on one axis, which is linear near zero and logarithmic farther out.

    Args:
        title: Title of the axis.
        key: Lines above the plot that say what its marks mean.
        single: What a single measurement is.
    """

    effects: Sequence[Effect]
    title: str
    key: Sequence[str] = ()
    single: str = "seed"

    def draw(self) -> alt.LayerChart:
        """Return the plot."""
        rows = [row for place, effect in enumerate(self.effects) for row in effect.rows(place)]
        chart: Any = alt.layer(
            *self._strips(),
            *self._effects(),
            *self._texts(),
            data=data_of(rows, numbers=FIELDS),
            height=ROW * len(self.effects),
            title=alt.Title([*self.key], fontSize=11, color=SOFT),
        )
        return chart

    def _base(self) -> alt.Chart:
        """Return what all layers share: their colors, those of the slots."""
        scale = alt.Scale(domain=self.slots, range=[LOOKS[slot].light for slot in self.slots])
        return alt.Chart().encode(color=alt.Color("slot:N", scale=scale, legend=None))

    @property
    def slots(self) -> list[str]:
        """The slots of all effects."""
        return [*dict.fromkeys(effect.slot for effect in self.effects)]

    def _y(self, name: str) -> alt.Y:
        """Return the rows from top to bottom, for a field."""
        scale = alt.Scale(domain=[0, len(self.effects)], reverse=True, nice=False, zero=False)
        return alt.Y(f"{name}:Q", scale=scale, axis=None)

    def _x(self, name: str) -> alt.X:
        """Return the axis, for a field."""
        ends = [end for effect in self.effects for end in effect.ends]
        low, high = min([-1.0, *ends]), max([1.0, *ends])
        axis = alt.Axis(
            title=self.title,
            values=sorted(tick for tick in TICKS if low <= tick <= high),
            labelExpr="format(datum.value, '~g')",
            labelOverlap=True,
            grid=False,
        )
        scale = alt.Scale(type="symlog", constant=1, domain=[low, high], nice=False, zero=False, padding=8)
        return alt.X(f"{name}:Q", scale=scale, axis=axis)

    def _strips(self) -> list[alt.Chart]:
        """Return the shades of no effect, the line at zero and the one at the smallest effect."""
        whole = (
            self._base().transform_filter("!isValid(datum.single)").encode(y=self._y("top"), y2="bottom:Q")
        )
        shade = whole.transform_calculate(lower="-datum.bound").mark_rect(color=LINE, opacity=0.7)
        zero = whole.transform_calculate(at="0").mark_rule(strokeWidth=0.8)
        smallest = whole.transform_calculate(at="1").mark_rule(strokeWidth=1.4, strokeDash=[3, 2])
        return [
            shade.encode(self._x("lower"), x2="bound:Q", color=alt.ColorValue(LINE)),
            zero.encode(self._x("at"), color=alt.ColorValue(SOFT)),
            smallest.encode(self._x("at"), color=alt.ColorValue(INK)),
        ]

    def _effects(self) -> list[alt.Chart]:
        """Return intervals, single measurements and means."""
        whole = self._base().transform_filter("!isValid(datum.single) && isValid(datum.low)")
        singles = self._base().transform_filter("isValid(datum.single)")
        name = alt.Tooltip("name:N", title=" ")
        value = alt.Tooltip("value:Q", title="in these units", format=".2f")
        shapes = alt.Scale(domain=self.slots, range=[LOOKS[slot].shape for slot in self.slots])
        return [
            whole.mark_rule(strokeWidth=2).encode(self._x("low"), self._y("mean"), x2="high:Q"),
            singles.mark_point(size=22, opacity=0.8).encode(
                self._x("value"),
                self._y("singles"),
                tooltip=[name, alt.Tooltip("single:N", title=self.single), value],
            ),
            whole.mark_point(size=70).encode(
                self._x("value"),
                self._y("mean"),
                shape=alt.Shape("slot:N", scale=shapes, legend=None),
                tooltip=[name, alt.Tooltip("detail:N", title="effect"), value],
            ),
        ]

    def _texts(self) -> list[alt.Chart]:
        """Return the names and the words."""
        whole = self._base().transform_filter("!isValid(datum.single)").encode(y=self._y("text"))
        room: Any = alt.ExprRef(f"width - {WORDS}")
        names = whole.mark_text(align="left", limit=room, fontSize=12)
        words = whole.mark_text(align="right", fontWeight=600)
        return [
            names.encode(x=alt.value(0), text="name:N", color=alt.ColorValue(INK)),
            words.encode(x=alt.value("width"), text="words:N"),
        ]

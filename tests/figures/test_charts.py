"""Charts are the same bytes for the same data, and show what they are given."""

from __future__ import annotations

import math

from matplotlib.figure import Figure as Canvas

from clm_detour.figures.canvas import COLORS, INK, LIGHT, Figure, png
from clm_detour.figures.charts import HeatMap, Line, LineChart, lowest_of
from clm_detour.figures.dots import Dot, DotPlot


def painted(chart):
    axes = Canvas().subplots()
    chart.paint(axes)
    return axes


def test_a_dot_plot_has_a_dot_for_each_group_its_intervals_and_the_line_at_zero():
    rows = {
        "first": [Dot(1.0, COLORS["detour"], (0.5, 1.5)), Dot(-1.0, COLORS["twin"])],
        "a name that is much too long for the plot": [None, Dot(math.nan, COLORS["twin"])],
    }
    axes = painted(DotPlot(rows, "points", zero=True, reach=2.0))
    dots = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert [(dot.get_xdata()[0], dot.get_color()) for dot in dots] == [
        (1.0, COLORS["detour"]),
        (-1.0, COLORS["twin"]),
    ]
    assert dots[0].get_ydata()[0] < 0 < dots[1].get_ydata()[0]  # apart, in one row
    assert [line.get_color() for line in axes.lines if len(line.get_xdata()) == 2] == [COLORS["detour"], INK]
    assert axes.get_xlim() == (-2.0, 2.0)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "a name that is much…"]


def test_lines_over_tokens_have_a_unit_that_suits_them():
    chart = LineChart(
        [Line([0, 5e6], [1.0, 2.0], COLORS["base"])], last=10_000_000, borders=[5e6], spans=[(0, 5e6, "clm")]
    )
    axes = painted(chart)
    assert axes.get_xlabel() == "tokens trained (millions)"
    assert [text.get_text() for text in axes.texts] == ["clm"]
    assert len(axes.lines) == 2


def test_lines_over_layers_name_their_layers_and_have_bands():
    layers = ["embeddings", "0", "1", "final_norm"]
    line = Line(
        range(4),
        [1.0, 2.0, 3.0, math.nan],
        COLORS["twin"],
        "debiased",
        band=[(0.5, 1.5), None, (2.0, 4.0), None],
    )
    axes = painted(LineChart([line], layers=layers, legend=""))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["emb.", "0", "1", "norm"]
    assert len(axes.collections) == 1
    assert axes.get_legend().get_texts()[0].get_text() == "debiased"


def test_several_heat_maps_have_one_scale_from_a_round_number():
    assert lowest_of([[[0.42, 1.0]], [[0.31, math.nan]]]) == 0.3
    assert lowest_of([]) == 0.0
    axes = painted(HeatMap([[1.0, 0.5]], ["0"], ["0", "1"], "layer of B", "layer of A", 0.3))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layer of B", "layer of A")


def test_the_same_chart_gives_the_same_bytes_in_the_page_and_in_files():
    def make() -> Figure:
        return Figure("dots", DotPlot({"a": [Dot(1.0, COLORS["detour"])]}, "points"), {"detour": "detour"})

    assert (make().svg(), make().png(), make().inline("x")) == (
        make().svg(),
        make().png(),
        make().inline("x"),
    )
    assert "var(--detour)" in make().inline("x")
    assert LIGHT[4] in make().svg()
    assert png([make().chart] * 2, width=6.0)[:4] == b"\x89PNG"

"""Charts hold every point that they are given, and nothing that was not measured."""

from __future__ import annotations

import csv
import io
import math

import pytest

from clm_detour.figures.axes import Layers, Tokens, Values
from clm_detour.figures.dots import Dot, DotPlot
from clm_detour.figures.figure import Figure
from clm_detour.figures.forest import Effect, ForestPlot
from clm_detour.figures.heatmap import HeatMap, lowest_of
from clm_detour.figures.histogram import histogram
from clm_detour.figures.lines import Line, LineChart
from clm_detour.figures.parts import Switch
from clm_detour.figures.theme import ARMS

HOSTILE = "a 'quoted\\' <b>name</b>, \"with\" commas"
ESTIMATORS = Switch("estimator", "Estimator", {"biased": "biased", "debiased": "debiased"})


def lines(**settings) -> LineChart:
    drawn = [
        Line([0, 1e6, 2e6, 3e6], [3.0, 2.5, math.nan, 2.0], arm, part="mlm") for arm in ("detour", "twin")
    ]
    axis = Tokens(5e6, borders=[2e6], spans=[(0, 2e6, "mlm"), (2e6, 5e6, "clm")])
    return LineChart(drawn, {"detour": "detour", "twin": "twin"}, axis, Values("loss"), **settings)


def layers(**settings) -> LineChart:
    line = Line(range(4), [0.1, 0.2, 0.3, math.nan], HOSTILE, [(0.05, 0.15), None, (0.2, 0.4), None])
    names = Layers(["embeddings", "0", "1", "final_norm"])
    return LineChart([line], {HOSTILE: "neutral-1"}, names, Values("divergence", "~%"), **settings)


def dots() -> DotPlot:
    rows = {
        "first": [Dot(1.0, "detour", (0.5, 1.5)), Dot(-1.0, "twin", singles={"42": -1.5, "43": -0.5})],
        HOSTILE: [None, Dot(math.nan, "twin")],
    }
    return DotPlot(rows, {"detour": "detour", "twin": "twin"}, Values("points"), zero=True, reach=2.0)


def heat_map() -> HeatMap:
    matrices = {"biased": [[1.0, 0.5]], "debiased": [[0.42, math.nan]]}
    return HeatMap(matrices, ["0"], ["0", HOSTILE], "layer of B", "layer of A", ESTIMATORS)


def forest() -> ForestPlot:
    effects = [
        Effect(
            HOSTILE, "supported", "supported", 1.0, 8.0, (4.0, 12.0), {"17": 5.0, "42": 20.0}, "+8 points"
        ),
        Effect("one", "undecided (one seed)", "undecided", 0.5, -0.2, None, {"17": -0.2}),
    ]
    return ForestPlot(effects, "effect", ["Shaded: none."])


def card():
    bins = [{"from": 0, "below": 2, "documents": 3}, {"from": 2, "below": 4, "documents": 8}]
    return histogram(HOSTILE, bins, 512, 3.0, [("documents", "11"), (HOSTILE, "1")])


CHARTS = {
    "lines": lines().draw(),
    "smoothed": lines(smoothing="medium").draw(),
    "layers": layers(points=True).draw(),
    "dots": dots().draw(),
    "heat-map": heat_map().draw(),
    "forest": forest().draw(),
    "card": card(),
}


def rows_of(chart) -> list[dict[str, str]]:
    """Return all rows of the data of a chart."""
    data = Figure("x", chart).spec["datasets"].values()
    return [row for text in data if isinstance(text, str) for row in csv.DictReader(io.StringIO(text))]


def layer_of(spec, kind: str):
    """Return the layers with a mark."""
    return [layer for layer in spec["layer"] if layer["mark"]["type"] == kind]


@pytest.mark.parametrize("name", CHARTS)
def test_charts_follow_the_schema_of_vega_lite(name):
    assert CHARTS[name].to_dict(validate=True)


def test_every_point_of_a_line_is_in_the_data_and_what_is_not_a_number_is_left_out():
    found = [(row["x"], row["y"]) for row in rows_of(CHARTS["lines"]) if row.get("name") == "twin"]
    assert found == [("0", "3"), ("1e+06", "2.5"), ("2e+06", ""), ("3e+06", "2")]
    bounds = [(row["low"], row["high"]) for row in rows_of(CHARTS["layers"])]
    assert bounds == [("0.05", "0.15"), ("", ""), ("0.2", "0.4"), ("", "")]


def test_a_line_breaks_where_nothing_was_measured():
    whole = LineChart(
        [Line(range(4), [1.0, 2.0, 2.5, 3.0], "twin")], {"twin": "twin"}, Tokens(3), Values("loss")
    )
    gap = LineChart(
        [Line(range(4), [1.0, 2.0, math.nan, 3.0], "twin")], {"twin": "twin"}, Tokens(3), Values("loss")
    )
    strokes = [
        Figure("x", chart.draw()).svg().partition("mark-line")[2].partition("</g>")[0]
        for chart in (whole, gap)
    ]
    assert [stroke.count("M") for stroke in strokes] == [1, 2]
    assert all("NaN" not in stroke for stroke in strokes)


def test_lines_over_tokens_have_a_unit_that_suits_them_and_the_names_of_their_spans():
    drawing = Figure("x", CHARTS["lines"]).svg()
    assert "tokens trained (millions)" in drawing
    assert all(f">{text}<" in drawing for text in ("mlm", "clm", "loss", "detour", "twin", "5"))


def test_lines_over_layers_name_their_layers():
    drawing = Figure("x", CHARTS["layers"]).svg()
    assert all(f">{text}<" in drawing for text in ("emb.", "0", "1", "norm", "layer", "20%"))


def test_lines_have_the_colors_markers_and_dashes_of_their_arms():
    spec = Figure("x", CHARTS["smoothed"]).spec
    encoding = layer_of(spec, "line")[1]["encoding"]
    assert encoding["color"]["scale"]["range"] == [ARMS["detour"].light, ARMS["twin"].light]
    assert encoding["strokeDash"]["scale"]["range"] == [[1, 0], list(ARMS["twin"].dash)]
    dots = layer_of(Figure("x", CHARTS["dots"]).spec, "point")
    assert dots[0]["encoding"]["shape"]["scale"]["range"] == ["diamond", "square"]


def test_only_charts_of_arms_follow_the_chips_of_the_page():
    has_arms = {
        name: [one["value"] for one in Figure("x", chart).spec.get("params", []) if one["name"] == "arms"]
        for name, chart in CHARTS.items()
    }
    assert {name for name, value in has_arms.items() if value} == {"lines", "smoothed", "dots"}
    assert has_arms["dots"] == [["detour", "twin"]]


def test_a_running_mean_stays_inside_its_part_and_stands_beside_every_point():
    spec = Figure("x", CHARTS["smoothed"]).spec
    pale, mean = layer_of(spec, "line")
    assert pale["encoding"]["y"]["field"] == "y"
    assert mean["encoding"]["y"]["field"] == "mean"
    assert all(step["groupby"] == ["name", "part"] for step in mean["transform"] if "window" in step)


def test_a_dot_plot_has_each_value_its_interval_and_each_single_measurement():
    found = [(row["row"], row["single"], row["value"], row["low"]) for row in rows_of(CHARTS["dots"])]
    assert found == [
        ("first", "", "1", "0.5"),
        ("first", "", "-1", ""),
        ("first", "42", "-1.5", ""),
        ("first", "43", "-0.5", ""),
    ]
    x = layer_of(Figure("x", CHARTS["dots"]).spec, "tick")[0]["encoding"]["x"]
    assert x["scale"]["domain"] == [-2.0, 2.0]


def test_several_heat_maps_have_one_scale_from_a_round_number():
    assert lowest_of([[[0.42, 1.0]], [[0.31, math.nan]]]) == 0.3
    assert lowest_of([]) == 0.0
    found = [(row["option"], row["cka"]) for row in rows_of(CHARTS["heat-map"])]
    assert found == [("biased", "1"), ("biased", "0.5"), ("debiased", "0.42"), ("debiased", "")]


def test_a_card_shows_its_facts_and_the_lengths_from_one_token():
    drawing = Figure("x", CHARTS["card"]).svg()
    assert all(f">{text}<" in drawing for text in ("11", "a row", "median", "documents"))
    assert [row["from"] for row in rows_of(CHARTS["card"]) if row.get("below")] == ["1", "2"]


def test_the_axis_of_a_forest_plot_holds_seeds_and_intervals_and_the_smallest_effect():
    scale = layer_of(Figure("x", CHARTS["forest"]).spec, "rule")[0]["encoding"]["x"]["scale"]
    assert scale["domain"] == [-1.0, 20.0]
    assert Figure("x", ForestPlot([forest().effects[1]], "effect").draw()).spec["layer"][0]["encoding"]["x"][
        "scale"
    ]["domain"] == [-1.0, 1.0]


def test_a_forest_plot_says_verdicts_in_words_and_draws_a_mean_only_with_an_interval():
    drawing = Figure("x", CHARTS["forest"]).svg()
    assert all(
        f">{text}<" in drawing for text in ("supported", "undecided (one seed)", "one", "Shaded: none.")
    )
    rows = [row for row in rows_of(CHARTS["forest"]) if not row["single"]]
    assert [(row["value"], row["low"], row["high"]) for row in rows] == [("8", "4", "12"), ("", "", "")]

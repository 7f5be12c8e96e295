"""Figures are the same bytes for the same data, well-formed, and safe inside HTML."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

from clm_detour.figures import interactive
from clm_detour.figures.axes import Tokens, Values
from clm_detour.figures.figure import Figure
from clm_detour.figures.heatmap import HeatMap
from clm_detour.figures.lines import Line, LineChart
from clm_detour.figures.parts import Switch
from clm_detour.figures.theme import ARMS

HOSTILE = "</script><script>alert('x')</script>"


def figure(name: str = "loss", arm: str = "detour") -> Figure:
    line = Line([0, 1, 2], [3.0, 2.0, 1.0], arm, band=[(2.0, 4.0), None, (0.5, 1.5)])
    return Figure(name, LineChart([line], {arm: "detour"}, Tokens(2), Values("loss")).draw())


def switched() -> Figure:
    switch = Switch("estimator", "Estimator", {"biased": "biased", "debiased": "debiased"})
    matrices = {"biased": [[1.0, 0.4]], "debiased": [[0.9, 0.6]]}
    return Figure("cka", HeatMap(matrices, ["0"], ["0", "1"], "of B", "of A", switch).draw())


def test_the_same_chart_gives_the_same_bytes_in_the_page_and_in_files(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        figure().save(tmp_path / folder)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("one", "two")
    )
    assert one == two
    assert one.keys() == {"loss.png", "loss.svg", "loss.json"}
    assert one["loss.png"][:4] == b"\x89PNG"
    assert figure().inline("label") == figure().inline("label")


def test_files_have_the_colors_of_light_paper_and_the_page_has_variables():
    made = figure()
    assert ARMS["detour"].light in made.svg()
    assert ARMS["detour"].dark in made.svg(dark=True)
    assert "var(--detour)" in made.inline("label")
    assert not re.search(r'(?:fill|stroke)="#', made.inline("label"))


def test_an_svg_is_well_formed_and_has_its_label():
    assert ET.fromstring(figure().svg()).tag.endswith("svg")
    static = re.search(r"<svg.*?</svg>", figure().inline('loss & "more"'), re.DOTALL)
    root = ET.fromstring(static[0].replace("xlink:href", "href"))
    assert (root.get("role"), root.get("aria-label")) == ("img", 'loss & "more"')


def test_ids_of_two_figures_do_not_meet():
    one, two = (set(re.findall(r'\bid="([^"]+)"', figure(name).inline("x"))) for name in ("one", "two"))
    assert one
    assert not one & two
    assert set(re.findall(r"url\(#([^)]+)\)", figure("one").inline("x"))) <= one


def test_names_cannot_leave_their_place_in_the_page():
    inline = figure(arm=HOSTILE).inline(HOSTILE)
    assert inline.count("<script") == inline.count("</script>") == 1
    assert "alert('x')" in json.loads(spec_text(inline))["description"]


def test_the_description_in_the_page_is_as_wide_as_its_place_and_reads_nothing_from_elsewhere():
    spec = json.loads(spec_text(figure().inline("label")))
    assert spec["width"] == "container"
    assert '"url"' not in json.dumps(spec)
    assert any(layer.get("name") == "hover" for layer in spec["layer"])


def spec_text(inline: str) -> str:
    """Return the description inside a figure of the page."""
    found = re.search(r'<script type="application/json">(.*?)</script>', inline, re.DOTALL)
    assert found
    return found[1]


def test_a_switch_has_files_for_each_option_and_the_page_shows_the_first(tmp_path):
    made = switched()
    made.save(tmp_path)
    names = {f"cka-{option}.{kind}" for option in ("biased", "debiased") for kind in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == names | {"cka.json"}
    biased, debiased = ((tmp_path / f"cka-{option}.svg").read_text() for option in ("biased", "debiased"))
    assert biased != debiased
    assert made.svg() == biased


def test_a_drawing_has_no_layer_for_the_pointer():
    assert "hover" not in figure().svg()


@pytest.fixture(scope="module")
def script() -> str:
    return str(interactive.bundle())


def test_the_script_cannot_end_early(script):
    assert script.count("</script") == 1
    assert "<!--" not in script
    assert len(script) < 1_000_000


def test_the_style_sheet_has_the_colors_of_all_arms():
    style = str(interactive.style())
    assert all(
        f"--{slot}: {look.light}" in style and f"--{slot}: {look.dark}" in style
        for slot, look in ARMS.items()
    )

"""A chart as a figure: inside the page, and as PNG, SVG and Vega-Lite files.

On the page a figure is the chart's SVG with its description. A browser with JavaScript replaces the SVG by
the interactive chart (`figures.interactive`); without JavaScript, and in print, the SVG stays. The same data
gives the same bytes.
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

from clm_detour.figures.theme import CONFIG, WIDTH, on_dark, on_page
from clm_detour.utils.files import atomic_write

Chart = alt.Chart | alt.LayerChart | alt.HConcatChart | alt.VConcatChart
SCALE = 2  # pixels of a PNG file for each pixel of a chart
HOVER = "hover"  # name of layers that only answer to the pointer
STACKS = ("hconcat", "vconcat")


@dataclass(frozen=True)
class Figure:
    """A chart with a name.

    Args:
        name: Name of the files; makes the ids of the SVG unique on the page.
        width: Width in files, in pixels. On the page a chart is as wide as its place.
    """

    name: str
    chart: Chart
    width: int = WIDTH

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The chart as Vega-Lite."""
        # Tests check charts against the schema, which takes long.
        spec: dict[str, Any] = self.chart.to_dict(validate=False)
        spec["config"] = CONFIG
        if not any(kind in spec for kind in STACKS):
            spec |= {"width": self.width, "autosize": {"type": "fit-x", "contains": "padding"}}
        return spec

    @cached_property
    def views(self) -> dict[str, str]:
        """What the files show: suffix of the name -> SVG, one for each option of the chart's switch."""
        for place, parameter in enumerate(self.spec.get("params", ())):
            if parameter.get("bind", {}).get("input") == "radio":
                return {f"-{one}": self._drawn(place, one) for one in parameter["bind"]["options"]}
        return {"": self._drawn()}

    def inline(self, label: str) -> Markup:
        """Return the chart for HTML; `label` says what it shows to those who do not see it."""
        drawing = on_page(next(iter(self.views.values())))
        box = re.search(r'viewBox="([^"]*)"', drawing)
        assert box, "Vega writes a viewBox"
        opening = Markup('<svg class="static" viewBox="{}" role="img" aria-label="{}">').format(box[1], label)
        static = opening + Markup(drawing[drawing.index(">") + 1 :])
        live = on_page(self.spec) | {"description": label, "width": "container"}
        parts = Markup('{}<div class="live"></div>{}').format(static, script_of(live))
        return Markup('<div class="chart" data-name="{}">{}</div>').format(self.name, parts)

    def svg(self, dark: bool = False) -> str:
        """Return the content of an SVG file without a background; `dark` is for dark paper."""
        drawing = next(iter(self.views.values()))
        return on_dark(drawing) if dark else drawing

    def png(self) -> bytes:
        """Return the content of a PNG file."""
        return png_of(next(iter(self.views.values())))

    def save(self, folder: Path) -> None:
        """Write `NAME.png`, `NAME.svg` and the description `NAME.json`.

        A chart with a switch has a PNG and an SVG for each option: `NAME-OPTION.png`.
        """
        for suffix, drawing in self.views.items():
            write(folder / f"{self.name}{suffix}.svg", drawing.encode())
            write(folder / f"{self.name}{suffix}.png", png_of(drawing))
        write(folder / f"{self.name}.json", json.dumps(self.spec, ensure_ascii=False).encode())

    def _drawn(self, place: int = 0, option: str | None = None) -> str:
        """Return an SVG in which an option of the switch at a place is chosen.

        Its ids are counted from 1 and begin with the figure's name.
        """
        spec = deepcopy(still(self.spec))
        spec["config"]["aria"] = False  # the page gives the whole chart a label
        if option is not None:
            spec["params"][place]["value"] = option
        drawing = vl_convert.vegalite_to_svg(spec)
        ids = {
            id: f"{self.name}-{place}" for place, id in enumerate(re.findall(r'\bid="([^"]+)"', drawing), 1)
        }
        drawing = re.sub(r'\bid="([^"]+)"', lambda found: f'id="{ids[found[1]]}"', drawing)
        return re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{ids[found[1]]})", drawing)


def png_of(drawing: str) -> bytes:
    """Return an SVG as PNG, on white."""
    end = drawing.index(">") + 1
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return vl_convert.svg_to_png(drawing[:end] + paper + drawing[end:], scale=SCALE)


def still(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a description without the layers that only answer to the pointer."""
    layers = [layer for layer in spec.get("layer", ()) if layer.get("name") != HOVER]
    return spec | {"layer": layers} if layers else spec


def script_of(spec: dict[str, Any]) -> Markup:
    """Return a description as an element of HTML that holds data; nothing in it can end the element."""
    text = json.dumps(spec, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return Markup('<script type="application/json">{}</script>').format(Markup(text))


def write(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it."""
    with atomic_write(path) as file:
        file.write(content)

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
from functools import cached_property, lru_cache
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
        """The drawings of the files: suffix of the name -> SVG, one for each option of the chart's switch."""
        for place, parameter in enumerate(self.spec.get("params", ())):
            if is_switch(parameter):
                return {f"-{one}": self._drawn(place, one) for one in parameter["bind"]["options"]}
        return {"": self._drawn()}

    def _titles(self) -> list[str]:
        """Return the texts of the options of the chart's switch; one empty text without a switch."""
        parameters = filter(is_switch, self.spec.get("params", ()))
        return next((parameter["bind"]["labels"] for parameter in parameters), [""])

    def inline(self, label: str) -> Markup:
        """Return the chart for HTML; `label` says what it shows to those who do not see it."""
        drawings = [*self.views.values()]
        static = inlined(drawings[0], "static", label)
        # Without the script, and in print, the other options of a switch stand below.
        for title, drawing in zip(self._titles()[1:], drawings[1:], strict=True):
            static += Markup('<p class="other">{}</p>').format(title)
            static += inlined(drawing, "static other", f"{title}: {label}")
        live = on_page(self.spec) | {"description": label, "width": "container"}
        # Buttons of two charts with one name are apart only in forms of their own.
        switches, place = Markup('<form class="switches"></form>'), Markup('<div class="live"></div>')
        parts = Markup().join((switches, static, place, script_of(live)))
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
        drawing = svg_of(json.dumps(spec, ensure_ascii=False))
        start = self.name if option is None else f"{self.name}-{option}"
        ids = {id: f"{start}-{place}" for place, id in enumerate(re.findall(r'\bid="([^"]+)"', drawing), 1)}
        drawing = re.sub(r'\bid="([^"]+)"', lambda found: f'id="{ids[found[1]]}"', drawing)
        return re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{ids[found[1]]})", drawing)


@lru_cache(maxsize=64)
def svg_of(spec: str) -> str:
    """Return a description, as JSON, as SVG; a page and its files have the same charts."""
    drawing: str = vl_convert.vegalite_to_svg(spec)
    return drawing


def is_switch(parameter: dict[str, Any]) -> bool:
    """Return whether a parameter of a chart is a switch between its options."""
    bound = parameter.get("bind")
    return isinstance(bound, dict) and bound.get("input") == "radio"


def inlined(drawing: str, kind: str, label: str) -> Markup:
    """Return an SVG for HTML, with the variables of the page as colors.

    Args:
        kind: Its classes.
        label: What it shows, for those who do not see it.
    """
    drawing = on_page(drawing)
    box = re.search(r'viewBox="([^"]*)"', drawing)
    assert box, "Vega writes a viewBox"
    opening = Markup('<svg class="{}" viewBox="{}" role="img" aria-label="{}">').format(kind, box[1], label)
    return opening + Markup(drawing[drawing.index(">") + 1 :])


def png_of(drawing: str) -> bytes:
    """Return an SVG as PNG, on white paper."""
    return vl_convert.svg_to_png(on_white(drawing), scale=SCALE)


def on_white(drawing: str) -> str:
    """Return an SVG on white paper."""
    end = drawing.index(">") + 1
    return f'{drawing[:end]}<rect width="100%" height="100%" fill="white"/>{drawing[end:]}'


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

"""The picture of a prepared source: a histogram of the lengths of its documents, and facts beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from clm_detour.figures.canvas import STYLE, UNDATED
from clm_detour.utils.files import atomic_write


def write_histogram(
    path: Path,
    title: str,
    bins: Sequence[Mapping[str, int]],
    row_length: int,
    median: float,
    facts: Sequence[tuple[str, str]],
) -> None:
    """Write the picture as SVG; the same content gives the same bytes.

    Args:
        bins: {from, below, documents}: documents by their number of tokens.
        row_length: Tokens of a row.
        median: Median number of tokens.
        facts: What stands beside the histogram, with values.
    """
    style = {name: STYLE[name] for name in ("svg.fonttype", "svg.hashsalt", "text.parse_math")}
    with matplotlib.style.context(["default", {**style, "font.size": 9}]):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        starts, counts = ([one[key] for one in bins] for key in ("from", "documents"))
        widths = [one["below"] - one["from"] for one in bins]
        left.bar(starts, counts, widths, align="edge", color="#4878a8", edgecolor="white", linewidth=0.6)
        left.axvline(row_length, color="#c05030", linewidth=1, label="a row")
        left.axvline(median, color="black", linewidth=1, linestyle=":", label="median")
        left.set_xscale("log", base=2)
        left.xaxis.set_major_formatter(lambda length, _: f"{length:,.0f}")
        left.set(xlabel="tokens in a document", ylabel="documents", title=title)
        left.legend(frameon=False)
        right.axis("off")
        table = right.table(facts, loc="center", cellLoc="left", edges="open", colWidths=[0.66, 0.34])
        table.auto_set_font_size(False)
        table.set_fontsize(8)
        with atomic_write(path, "w") as file:
            figure.savefig(file, format="svg", metadata=UNDATED["svg"])

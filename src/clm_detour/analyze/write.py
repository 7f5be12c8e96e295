"""A comparison's folder: compare.json, layers.csv, matrices.csv, and figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clm_detour.analyze.figures import draw_comparison
from clm_detour.analyze.show import write_comparison_csv
from clm_detour.files import write_json


def write_comparison(comparison: Mapping[str, Any], folder: Path) -> None:
    """Write them all; the JSON last, so that the rest is there if it is."""
    write_comparison_csv(comparison, folder)
    draw_comparison(comparison, folder)
    write_json(folder / "compare.json", comparison)

"""Figures as PNG and SVG files: heat map of a comparison, curves by layer, and what the other analyses draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clm_detour.analyze.show import same_layers
from clm_detour.utils.files import atomic_write

STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.linewidth": 0.4,
    "grid.color": "#d8d8d8", "axes.axisbelow": True, "svg.fonttype": "none", "svg.hashsalt": "clm-detour",
}  # fmt: skip
COLOURS = (
    "#0b6e99",
    "#d1495b",
    "#edae49",
    "#6a4c93",
    "#3f7d20",
    "#7f7f7f",
)  # told apart by the colour-blind too
CURVES = ("biased", "debiased", "debiased_trimmed")


def save(folder: Path, name: str, size: tuple[float, float], paint: Callable[[Axes], None]) -> None:
    """Draw one panel into `name.png` and `name.svg`; `size` in inches."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure.add_subplot())
        for kind in ("png", "svg"):
            with atomic_write(folder / f"{name}.{kind}") as file:
                metadata = {"Date": None} if kind == "svg" else None
                figure.savefig(file, format=kind, dpi=160, metadata=metadata)


def draw_comparison(comparison: Mapping[str, Any], folder: Path) -> None:
    """`heatmap-VARIANT` for the biased and the debiased matrix, and `curves`."""
    main = comparison["comparisons"]["detour_twin"]
    names = [comparison["models"][role]["layers"] for role in main["models"]]
    for variant in ("biased", "debiased"):
        matrix = main["variants"][variant]["matrix"]
        save(
            folder,
            f"heatmap-{variant}",
            (5, 4.4),
            partial(heat_map, matrix=matrix, names=names, variant=variant),
        )
    save(folder, "curves", (6.4, 3.6), lambda axes: layer_curves(axes, comparison))


def heat_map(
    axes: Axes, matrix: Sequence[Sequence[float]], names: Sequence[Sequence[str]], variant: str
) -> None:
    """CKA of all layers with all layers, from the bottom left."""
    shown = [[float("nan") if value is None else value for value in row] for row in matrix]
    image = axes.imshow(shown, vmin=0, vmax=1, cmap="viridis", origin="lower")
    axes.grid(False)
    for set_ticks, layers in ((axes.set_yticks, names[0]), (axes.set_xticks, names[1])):
        step = max(len(layers) // 12, 1)
        set_ticks(range(0, len(layers), step), [_short(layer) for layer in layers[::step]])
    axes.set_ylabel("layer of A")
    axes.set_xlabel("layer of B")
    axes.figure.colorbar(image, ax=axes, label=f"CKA, {variant}")


def layer_curves(axes: Axes, comparison: Mapping[str, Any]) -> None:
    """Divergence by layer, a colour an estimator, dashed for the control if it has as many, with intervals."""
    main, control = (comparison["comparisons"].get(name) for name in ("detour_twin", "control"))
    beside = control if control and same_layers(main, control) else None
    for part, dash in ((main, "-"), (beside, "--")):
        for variant, colour in zip(CURVES, COLOURS[: len(CURVES)], strict=True):
            if part is not None:
                label = variant.replace("_", ", ") + ("" if dash == "-" else ", control")
                _curve(axes, part["variants"][variant], colour, dash, label)
    layers = [_short(pair[0]) for pair in main["pairs"]]
    step = max(len(layers) // 14, 1)
    axes.set_xticks(range(0, len(layers), step), layers[::step])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layer")
    axes.set_ylabel("divergence, 1 - CKA")
    axes.legend(fontsize=7, frameon=False)


def _curve(axes: Axes, variant: Mapping[str, Any], colour: str, dash: str, label: str) -> None:
    values = [float("nan") if value is None else value for value in variant["divergence"]]
    axes.plot(values, dash, color=colour, label=label, linewidth=1.4)
    bounds = variant["interval"]
    if bounds:
        low, high = zip(
            *((float("nan"), float("nan")) if None in pair else pair for pair in bounds), strict=True
        )
        axes.fill_between(range(len(values)), low, high, color=colour, alpha=0.15, linewidth=0)


def _short(layer: str) -> str:
    return {"embeddings": "emb", "final_norm": "norm"}.get(layer, layer)

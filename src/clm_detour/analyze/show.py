"""A comparison as CSV files and as a table on the terminal."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from clm_detour.utils.files import atomic_write

IN_CSV = {"detour_twin": "a_b"}  # A and B may be any two models; control and before are what they are called
SHOWN = ("biased", "debiased", "biased_trimmed", "debiased_trimmed", "minibatch", "tokens", "every_text")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file, atomically; None becomes an empty cell."""
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_comparison_csv(comparison: Mapping[str, Any], folder: Path) -> None:
    """Write `layers.csv`, a line a comparison, variant and matched pair, and `matrices.csv`, a line a comparison, variant and any pair.

    The comparisons are `a_b`, `control` and `before`.
    """
    header = ("comparison", "variant", "layer_a", "layer_b", "cka", "divergence", "low", "high", "chance")
    write_csv(folder / "layers.csv", header, _layers(comparison))
    write_csv(
        folder / "matrices.csv", ("comparison", "variant", "layer_a", "layer_b", "cka"), _matrices(comparison)
    )


def _variants(
    comparison: Mapping[str, Any],
) -> Iterator[tuple[str, Mapping[str, Any], str, Mapping[str, Any]]]:
    for name, part in comparison["comparisons"].items():
        for variant, values in part["variants"].items():
            yield IN_CSV.get(name, name), part, variant, values


def _layers(comparison: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for name, part, variant, values in _variants(comparison):
        for i, (a, b) in enumerate(part["pairs"]):
            low, high = values["interval"][i] if values["interval"] else (None, None)
            yield (
                name,
                variant,
                a,
                b,
                values["cka"][i],
                values["divergence"][i],
                low,
                high,
                values["chance"][i],
            )


def _matrices(comparison: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for name, part, variant, values in _variants(comparison):
        layers_a, layers_b = (comparison["models"][role]["layers"] for role in part["models"])
        for a, row in zip(layers_a, values["matrix"] or (), strict=bool(values["matrix"])):
            for b, value in zip(layers_b, row, strict=True):
                yield name, variant, a, b, value


def percent(value: float | None, bounds: Sequence[float | None] | None = None) -> str:
    """0.123 -> '12.3', with its interval '12.3 (11.0 to 13.4)'."""
    if value is None:
        return ""
    low, high = bounds or (None, None)
    text = one_decimal(100 * value)
    return (
        text
        if low is None or high is None
        else f"{text} ({one_decimal(100 * low)} to {one_decimal(100 * high)})"
    )


def one_decimal(value: float) -> str:
    """-0.04 -> '0.0', without the sign of what rounds to zero."""
    return f"{round(value, 1) + 0.0:.1f}"


def times(value: Mapping[str, Any] | None) -> str:
    """A quotient with its interval."""
    if value is None or value["model"] is None:
        return ""
    bounds = value["interval"]
    return f"{value['model']:.2f}" + (
        f" ({bounds[0]:.2f} to {bounds[1]:.2f})" if bounds and None not in bounds else ""
    )


def same_layers(main: Mapping[str, Any], control: Mapping[str, Any]) -> bool:
    """Whether the control's pairs of layers may stand beside those of A and B: not where A and B differ in depth."""
    return len(main["pairs"]) == len(control["pairs"])


def comparison_tables(comparison: Mapping[str, Any]) -> list[Table]:
    """The models' divergence by every estimator, and that of each layer by three of them."""
    main, control = (comparison["comparisons"].get(name) for name in ("detour_twin", "control"))
    whole = Table(title="Divergence (mean over layers of 1 - CKA, %)")
    for column in ("estimator", "A and B", "control", "ratio", "retention"):
        whole.add_column(column)
    for variant in SHOWN:
        if variant in main["variants"]:
            cells = [
                percent(part["variants"][variant]["model"]["divergence"], part["variants"][variant]["model"]["interval"])
                if part else ""
                for part in (main, control)
            ]  # fmt: skip
            quotients = [times((comparison[key] or {}).get(variant)) for key in ("ratio", "retention")]
            whole.add_row(variant, *cells, *quotients)
    layers = Table(title="Divergence of each layer (%)")
    for column in ("A", "B", "biased", "control", "debiased", "control", "debiased_trimmed", "control"):
        layers.add_column(column, justify="left" if len(column) == 1 else "right")
    beside = (main, control if control and same_layers(main, control) else None)
    for i, pair in enumerate(main["pairs"]):
        cells = [
            percent(part["variants"][variant]["divergence"][i]) if part else ""
            for variant in ("biased", "debiased", "debiased_trimmed")
            for part in beside
        ]
        layers.add_row(*pair, *cells)
    return [whole, layers]

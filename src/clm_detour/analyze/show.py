"""A comparison as CSV files and as tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from clm_detour.figures.renderers import csv_lines
from clm_detour.figures.table import Row, Table, Value
from clm_detour.records.analysis import NetworkComparison, Pairing, Quotient, Variant
from clm_detour.utils.files import atomic_write

IN_CSV = {"detour_twin": "a_b"}  # A and B may be any two models; control and before are what they are called
SHOWN = ("biased", "debiased", "biased_trimmed", "debiased_trimmed", "minibatch", "tokens", "every_text")
BY_LAYER = ("biased", "debiased", "debiased_trimmed")


def write_comparison_csv(found: NetworkComparison, folder: Path) -> None:
    """Write `layers.csv` and `matrices.csv`.

    The first has a line for each pair of matched layers, the second one for each pair of any layers. Both
    have a line for each comparison (`a_b`, `control` and `before`) and each estimator.
    """
    for name, rows in (("layers", layer_rows(found)), ("matrices", matrix_rows(found))):
        with atomic_write(folder / f"{name}.csv", "w") as file:
            file.write(csv_lines(rows))


def estimators(found: NetworkComparison) -> Iterator[tuple[str, Pairing, str, Variant]]:
    """Yield each estimator of each comparison, with the comparison's name in CSV files."""
    for name, part in found.comparisons.items():
        for variant, values in part.variants.items():
            yield IN_CSV.get(name, name), part, variant, values


def layer_rows(found: NetworkComparison) -> Iterator[Sequence[Value]]:
    """Yield a head and the rows of `layers.csv`."""
    yield "comparison", "variant", "layer_a", "layer_b", "cka", "divergence", "low", "high", "chance"
    for name, part, variant, values in estimators(found):
        columns = zip(part.pairs, values.cka, values.divergence, values.intervals, values.chance, strict=True)
        for pair, cka, divergence, interval, chance in columns:
            yield name, variant, *pair, cka, divergence, *(interval or (None, None)), chance


def matrix_rows(found: NetworkComparison) -> Iterator[Sequence[Value]]:
    """Yield a head and the rows of `matrices.csv`."""
    yield "comparison", "variant", "layer_a", "layer_b", "cka"
    for name, part, variant, values in estimators(found):
        one, other = (found.models[role].layers for role in part.models)
        for a, row in zip(one, values.matrix or (), strict=bool(values.matrix)):
            for b, value in zip(other, row, strict=True):
                yield name, variant, a, b, value


def percent(value: float | None, bounds: Sequence[float | None] | None = None) -> str:
    """Return a share in percent, with its interval if there is one: '12.3 (11.0 to 13.4)'."""
    if value is None or value != value:
        return ""
    low, high = bounds or (None, None)
    ends = "" if low is None or high is None else f" ({one_decimal(100 * low)} to {one_decimal(100 * high)})"
    return one_decimal(100 * value) + ends


def one_decimal(value: float) -> str:
    """Return a number without the sign of what rounds to zero: -0.04 -> '0.0'."""
    return f"{round(value, 1) + 0.0:.1f}"


def quotient_text(found: Quotient | None) -> str:
    """Return a quotient of divergences, with its interval if there is one."""
    if found is None or found.model != found.model:
        return ""
    ends = f" ({found.interval[0]:.2f} to {found.interval[1]:.2f})" if found.interval else ""
    return f"{found.model:.2f}{ends}"


def comparison_tables(found: NetworkComparison) -> list[Table]:
    """Return the divergence of the models by estimator, and that of each layer by the main estimators."""
    return [estimator_table(found), layer_table(found)]


def estimator_table(found: NetworkComparison) -> Table:
    """Return the divergence of the models by estimator, with ratio and retention."""
    rows = []
    for name in SHOWN:
        if name in found.main.variants:
            variants = (found.variant(part, name) for part in ("detour_twin", "control"))
            cells = [percent(v.model.divergence, v.model.interval) if v else "" for v in variants]
            quotients = [quotient_text((each or {}).get(name)) for each in (found.ratio, found.retention)]
            rows.append(Row([name, *cells, *quotients]))
    head = ["estimator", "A and B", "control", "ratio", "retention"]
    return Table("Divergence (mean over layers of 1 - CKA, %)", head, rows, left=range(1, 5))


def layer_table(found: NetworkComparison) -> Table:
    """Return the divergence of each pair of layers; the control's only where it has as many pairs."""
    curves = [found.curve(part, name) for name in BY_LAYER for part in ("detour_twin", "control")]
    rows = [
        Row([*pair, *(percent(curve.divergence[i]) if curve else "" for curve in curves)])
        for i, pair in enumerate(found.main.pairs)
    ]
    head = ["A", "B", *(title for name in BY_LAYER for title in (name, "control"))]
    return Table("Divergence of each layer (%)", head, rows, left={1})

"""What every arm of a run came to, in one table, for ablations such as freezing: `arms.json`.

reference   the arm that differences are taken from: twin, or the first
columns     names of the measures: masked_loss and masked_accuracy (%, of held-out rows), and the groups of tasks that the evaluation averages
arms        [{arm, phases: [{name, objective, duration, frozen (layers, or null)}...], values: column -> number or null,
              difference: column -> value minus the reference's, or null}...]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.table import Table

from clm_detour.errors import UserError
from clm_detour.files import read_json


def tabulate_arms(run: Path) -> dict[str, Any]:
    """Gather a run's arms from its config, `evaluation/held_out.json` and every `summary.json` under `evaluation/`, as far as they are there.

    Raises:
        UserError: no run there.
    """
    if not (run / "config.yaml").exists():
        raise UserError(f"{run} is no run: it has no config.yaml.")
    config = OmegaConf.load(run / "config.yaml")
    values: dict[str, dict[str, float | None]] = {str(arm): {} for arm in config.arms}
    held_out = run / "evaluation" / "held_out.json"
    if held_out.exists():
        for arm, score in read_json(held_out)["models"].items():
            if arm in values:
                values[arm] |= {"masked_loss": score["loss"], "masked_accuracy": 100 * score["accuracy"]}
    for summary in sorted((run / "evaluation").rglob("summary.json")):
        for group in read_json(summary)["groups"]:
            for arm, average in group["averages"].items():
                if arm in values:
                    values[arm][group["name"]] = average["mean"]
    columns = list(dict.fromkeys(column for row in values.values() for column in row))
    reference = "twin" if "twin" in values else next(iter(values))
    return {
        "reference": reference,
        "columns": columns,
        "arms": [
            {
                "arm": arm,
                "phases": [_phase(name, config.phases[name]) for name in config.arms[arm]],
                "values": {column: row.get(column) for column in columns},
                "difference": {
                    column: _minus(row.get(column), values[reference].get(column)) for column in columns
                },
            }
            for arm, row in values.items()
        ],
    }


def _phase(name: str, phase: Any) -> dict[str, Any]:
    freeze = phase.get("freeze")
    return {
        "name": name,
        "objective": phase.objective,
        "duration": phase.duration,
        "frozen": None if freeze is None else freeze.layers,
    }


def _minus(value: float | None, reference: float | None) -> float | None:
    return None if value is None or reference is None else value - reference


def arms_table(result: Mapping[str, Any]) -> Table:
    """A row an arm: each measure, and its difference from the reference."""
    table = Table(title=f"Arms (difference from {result['reference']})")
    for column in ("arm", "phases", *result["columns"]):
        table.add_column(column)
    for arm in result["arms"]:
        phases = ", ".join(
            phase["name"] + (f" (layers {phase['frozen']} frozen)" if phase["frozen"] else "")
            for phase in arm["phases"]
        )
        cells = [
            "" if arm["values"][c] is None else f"{arm['values'][c]:.3f} ({arm['difference'][c] or 0:+.3f})"
            for c in result["columns"]
        ]
        table.add_row(arm["arm"], phases, *cells)
    return table

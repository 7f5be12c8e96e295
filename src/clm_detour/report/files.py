"""The page's figures and numbers as files, so that they can stand elsewhere.

report/NAME.png, NAME.svg    each figure
report/NAME.csv              each table as it reads
report/curves.csv            every logged step of every phase
report/numbers.json          everything that the tables say, unrounded
"""

from __future__ import annotations

import csv
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from clm_detour.report.costs import cost_of
from clm_detour.report.plots import Attachments, Sheet
from clm_detour.report.records import Curve, Run
from clm_detour.utils.files import atomic_folder, finite, write_json


def write_files(run: Run, attachments: Attachments, folder: Path) -> None:
    """Replace the folder by these files."""
    with atomic_folder(folder) as temporary:
        for item in attachments:
            if isinstance(item, Sheet):
                (temporary / f"{item.name}.csv").write_text(item.csv(), encoding="utf-8")
            else:
                (temporary / f"{item.name}.svg").write_text(item.svg(), encoding="utf-8")
                (temporary / f"{item.name}.png").write_bytes(item.png())
        write_curves(run, temporary / "curves.csv")
        write_json(temporary / "numbers.json", numbers(run))


def write_curves(run: Run, path: Path) -> None:
    """A line a logged step; what is not a number stays empty."""
    names = [field.name for field in fields(Curve)]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["phase", *names])
        for phase in run.phases.values():
            columns = [getattr(phase.curve, name) for name in names] if phase.curve else []
            writer.writerows([phase.id, *map(empty, values)] for values in zip(*columns, strict=True))


def empty(value: float) -> float | str:
    """As CSV."""
    return float(value) if math.isfinite(value) else ""


def numbers(run: Run) -> dict[str, Any]:
    """All records but the curves, the texts and the recipe."""
    phases = {
        id: {
            "objective": phase.objective,
            "tokens": phase.tokens,
            "end": phase.end and asdict(phase.end),
            "cost": phase.end and asdict(cost_of(run, id, phase.end)),
            "held_out": phase.watched and asdict(phase.watched),
        }
        for id, phase in run.phases.items()
    }
    found = {
        "run": run.name,
        "arms": run.arms,
        "phases": phases,
        "steps": [asdict(step) for step in run.steps],
        "sources": {name: asdict(source) for name, source in run.sources.items()},
        "held_out": run.held_out and asdict(run.held_out),
        "tasks": run.evaluation and asdict(run.evaluation),
        "comparison": run.comparison and asdict(run.comparison),
        "weights": [asdict(change) for change in run.weights],
        "trajectory": run.trajectory and asdict(run.trajectory),
        "gradients": {name: asdict(found) for name, found in run.gradients.items()},
        "missing": [*run.missing, *run.left_out],
    }
    return finite(found)

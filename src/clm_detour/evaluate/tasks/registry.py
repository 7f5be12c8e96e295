"""All tasks by name, where their data lies, and what it holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from clm_detour.evaluate.tasks import (
    blurb,
    chemprot,
    cos,
    deid,
    diamed,
    frasimed,
    gad,
    hoc,
    meddialog,
    phenotype,
    quaero,
    social_history,
)
from clm_detour.evaluate.tasks.splits import shared_ids
from clm_detour.evaluate.tasks.task import Splits, Task
from clm_detour.utils.errors import UserError

ENGLISH = (
    chemprot,
    phenotype,
    cos,
    social_history,
    deid,
    blurb,
    gad,
    hoc,
)  # in the order of the paper's tables
FRENCH = (frasimed, meddialog, diamed, quaero)
PAPER = tuple(task for family in ENGLISH + FRENCH for task in family.TASKS)
TASKS: dict[str, Task] = {task.name: task for task in (*PAPER, *deid.MORE)}


def locate(task: Task, root: Path) -> Path | None:
    """The folder of a task's data set under `root`, or None; `root` itself for a set that lies elsewhere."""
    if task.elsewhere:
        return root
    return next((root / name for name in (task.name, *task.folders) if (root / name).is_dir()), None)


def load(task: Task, root: Path) -> tuple[Task, Splits]:
    """Read a task's data set under `root`; the task comes back with the labels that the data has, where it has none of its own.

    Raises:
        UserError: it is not there, says how to get it; it cannot be read; or a document is in two splits against its promise.
    """
    folder = locate(task, root)
    if folder is None:
        raise UserError(f"{root} has no folder {task.name}. {task.obtain}")
    splits, skipped = task.read(folder)
    for (one, other), both in shared_ids(splits).items() if task.disjoint else ():
        raise UserError(
            f"{folder}: {one} and {other} share {len(both)} documents, {min(both)} among them; get the data set again, "
            "or set `disjoint: false` if it is meant so."
        )
    labels = task.labels or labels_of(splits.values())
    return replace(task, labels=labels, skipped=skipped), splits


def labels_of(splits: Iterable) -> tuple[str, ...]:
    """Every label that occurs, sorted."""
    documents = [one for split in splits for one in split]
    types = {entity.label for one in documents for entity in one.entities}
    return tuple(sorted(types | {label for one in documents for label in one.labels}))

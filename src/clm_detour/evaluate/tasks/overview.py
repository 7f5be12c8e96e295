"""The table of `clm-detour tasks`: counts of documents and labels, and where to get absent data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from clm_detour.evaluate.tasks.left_out import of_data, sentence
from clm_detour.evaluate.tasks.registry import load, locate
from clm_detour.evaluate.tasks.splits import shared_ids, shared_texts
from clm_detour.evaluate.tasks.task import SPLITS, Splits, Task
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import console, progress


def counts(task: Task, splits: Splits) -> dict[str, int]:
    """Count documents, entities and labels, in each split and in total.

    Returns:
        `train.documents`, `train.entities`, `train.entities.Disease`, `train.labels.CPR:3`, `train.positive`
        (documents without `task.negative`), `train.annotations` (entities and those that a flat task leaves
        out), and the same names without a split for the totals.
    """
    found: Counter[str] = Counter()
    for split, documents in splits.items():
        for one in documents:
            named = ["documents"]
            named += [name for entity in one.entities for name in ("entities", f"entities.{entity.label}")]
            named += ["annotations"] * (len(one.entities) + len(one.left_out))
            named += [f"labels.{label}" for label in one.labels]
            named += ["positive"] * (task.negative is not None and task.negative not in one.labels)
            found.update(named)
            found.update(f"{split}.{name}" for name in named)
    return dict(found)


def differences(task: Task, splits: Splits) -> list[str]:
    """Return a sentence for each count that differs from the published one."""
    found = counts(task, splits) | {"labels": len(task.labels)}
    return [
        f"{task.name}: {name.replace('.', ' ')}: {found.get(name, 0):,} here, {count:,} published"
        for name, count in task.published.items()
        if found.get(name, 0) != count
    ]


def overlaps(task: Task, splits: Splits) -> Iterator[str]:
    """Yield a sentence for each pair of splits that shares documents or texts."""
    for what, found in (("documents", shared_ids(splits)), ("equal texts", shared_texts(splits))):
        for (one, other), both in found.items():
            yield f"{task.name}: {one} and {other} share {len(both):,} {what}"


def print_overview(tasks: Sequence[Task], root: Path | None) -> None:
    """Print a table of tasks; given a folder, with the counts of the data that it contains.

    Args:
        root: Folder with a folder for each task.
    """
    table = Table(
        "task", "", "kind", *((*SPLITS, "") if root else ("score",)), box=None, padding=(0, 2, 0, 0)
    )
    for column in table.columns:
        column.no_wrap = True
    notes: list[str] = []
    absent = [task for task in tasks if root is None or locate(task, root) is None]
    with progress("Tasks", len(tasks), "tasks") as advance:  # reading all data sets takes about 15 seconds
        for task in tasks:
            if root is None:
                cells = [task.metric]
            else:
                cells = ["absent"] if task in absent else data_cells(task, root, notes)
            table.add_row(task.name, task.language, task.kind, *cells)
            advance(1)
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)
    for task in absent:
        console.print(f"{task.name}: {task.obtain} Licence: {task.licence}.", soft_wrap=True)


def data_cells(task: Task, root: Path, notes: list[str]) -> list[str]:
    """Return the cells of a task whose data is there; append remarks on the data to `notes`."""
    try:
        loaded, splits = load(task, root)
    except UserError as error:
        notes.append(f"{task.name} cannot be read: {error}")
        return ["broken"]
    notes += [f"Warning: {difference}." for difference in differences(loaded, splits)]
    notes += [f"{overlap}." for overlap in overlaps(loaded, splits)]
    found = counts(loaded, splits)
    if left_out := of_data(loaded, splits):
        notes.append(f"{sentence(task.name, left_out)}.")
    labels = f"{sum(count for name, count in found.items() if name.startswith('labels.')):,} labels"
    annotated = f"{found['annotations']:,} entities" if "annotations" in found else labels
    return [*(f"{found.get(f'{split}.documents', 0):,}" for split in SPLITS), annotated]

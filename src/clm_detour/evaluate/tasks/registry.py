"""The registered tasks, where their data sets are, and what these contain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

import yaml

from clm_detour.evaluate.published import AVERAGE, published_scores
from clm_detour.evaluate.tasks.splits import shared_ids
from clm_detour.evaluate.tasks.task import Document, Splits, Task
from clm_detour.evaluate.tasks.yaml_task import from_yaml
from clm_detour.utils.errors import UserError

LIBRARY = resources.files("clm_detour.evaluate.tasks") / "library"


def columns(language: str) -> list[str]:
    """Return the tasks of the paper's table for a language, in its order."""
    scores = next(iter(published_scores(language).values()))
    return [name for name in scores if name != AVERAGE]


PAPER = (*columns("en"), *columns("fr"))


class TaskLibrary(Mapping[str, Task]):
    """The tasks of the folder `library/`, one in each file. A file is parsed when its task is first used.

    The paper's tasks come first, in the order of its tables, then the other ones by name.
    """

    def __init__(self) -> None:
        names = [path.name.removesuffix(".yaml") for path in LIBRARY.iterdir() if path.name.endswith(".yaml")]
        others = sorted(set(names) - set(PAPER), key=str.lower)
        self.tasks: dict[str, Task | None] = dict.fromkeys([*PAPER, *others])

    def __getitem__(self, name: str) -> Task:
        task = self.tasks[name]
        if task is None:
            text = (LIBRARY / f"{name}.yaml").read_text(encoding="utf-8")
            task = self.tasks[name] = from_yaml(name, yaml.safe_load(text))
        return task

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)


TASKS = TaskLibrary()


def locate(task: Task, root: Path) -> Path | None:
    """Return the folder of a task's data set in `root`, or None; `root` itself for data that is elsewhere."""
    if task.elsewhere:
        return root
    return next((root / name for name in (task.name, *task.folders) if (root / name).is_dir()), None)


def load(task: Task, root: Path) -> tuple[Task, Splits]:
    """Read the data set of a task.

    Args:
        root: Folder with a folder for each task.

    Returns:
        The task, with the labels of the data if it names none itself, and the documents of each split.

    Raises:
        UserError: If the data set is not there (the message says where to get it) or cannot be read, or if a
            document is in two splits of a task that should not have any.
    """
    folder = locate(task, root)
    if folder is None:
        raise UserError(f"{root} has no folder {task.name}. {task.obtain}")
    splits, skipped = task.read(folder)
    for (one, other), both in shared_ids(splits).items() if task.disjoint else ():
        raise UserError(
            f"{folder}: {one} and {other} share {len(both)} documents, {min(both)} among them; get the "
            "data set again, or set `disjoint: false` if this is intended."
        )
    labels = task.labels or labels_of(splits.values())
    return replace(task, labels=labels, skipped=skipped), splits


def labels_of(splits: Iterable[list[Document]]) -> tuple[str, ...]:
    """Return all labels and entity types that occur, sorted."""
    documents = [one for split in splits for one in split]
    types = {entity.label for one in documents for entity in one.entities}
    return tuple(sorted(types | {label for one in documents for label in one.labels}))

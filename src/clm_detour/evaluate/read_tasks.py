"""The tasks of an evaluation, with their documents and the protocols to be used."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from clm_detour.config.protocols import Protocol, changed
from clm_detour.config.schema import FineTuning
from clm_detour.evaluate.finetune.experiment import limit_documents
from clm_detour.evaluate.sample_tasks import SAMPLE_TASKS
from clm_detour.evaluate.tasks import TASKS, Splits, Task, from_yaml, load, locate
from clm_detour.evaluate.tasks.left_out import count_not_chosen
from clm_detour.evaluate.tasks.task import METRICS
from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import one_of


def read_tasks(settings: FineTuning) -> tuple[list[tuple[Task, Splits]], dict[str, str]]:
    """Read the documents of all tasks whose data is there.

    Returns:
        The tasks with their documents, and for each task without data the reason.

    Raises:
        UserError: If a name is unknown, a data set cannot be read, or none is there.
    """
    found: list[tuple[Task, Splits]] = []
    missing: dict[str, str] = {}
    known = known_tasks(settings)
    for name in settings.tasks:
        one_of(name, known, "tasks")
    for name in settings.tasks:
        task = known[name]
        if not task.elsewhere and (settings.data is None or locate(task, Path(settings.data)) is None):
            missing[name] = (
                f"{settings.data or 'data is not set, so there'} has no folder {name}. {task.obtain}"
            )
            continue
        task, splits = load(task, Path(settings.data or ""))
        protocol = changed(changed(task.protocol, settings.protocol), settings.protocols.get(name, {}))
        check_selection(task, protocol)
        chosen = limit_documents(splits, settings.documents)
        skipped = {**task.skipped, **count_not_chosen(splits, chosen)}
        found.append((dataclasses.replace(task, protocol=protocol, skipped=skipped), chosen))
    if not found:
        raise UserError(
            f"None of the tasks is there ({', '.join(missing)}); set data (evaluate.tasks.data in a recipe) "
            "to the folder that holds their folders."
        )
    return found, missing


def check_selection(task: Task, protocol: Protocol) -> None:
    """Check that the score that chooses the best round is one of this kind of task.

    Raises:
        UserError: If not.
    """
    if protocol.select_by is not None:
        known = [one for one in METRICS[task.kind] if one != "positive_f1" or task.negative is not None]
        one_of(protocol.select_by, known, f"protocol.select_by of {task.name}")


def known_tasks(settings: FineTuning) -> dict[str, Task]:
    """Return the tasks of the library, the bundled ones and those under `own_tasks`, by name."""
    own = {name: from_yaml(name, described) for name, described in settings.own_tasks.items()}
    return {**TASKS, **SAMPLE_TASKS, **own}

"""Check the tasks on which models are fine-tuned, and the results that a run folder already has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from clm_detour.config.schema import FineTuning
from clm_detour.evaluate.command import read_tasks
from clm_detour.evaluate.finetune.experiment import data_fingerprint
from clm_detour.evaluate.finetune.problem import check_labels, check_splits
from clm_detour.evaluate.finetune.run import Options, settings_of
from clm_detour.evaluate.tasks.task import Splits, Task
from clm_detour.recipe.export import ABOUT
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json
from clm_detour.utils.started_with import check


def check_tasks(
    settings: FineTuning, folder: RunFolder, last_phases: Mapping[str, str], has_tokenizer: bool
) -> list[str]:
    """Check that tasks can be read, learned and scored, and that new results compare with existing ones.

    Args:
        last_phases: Id of the last phase of each arm.
        has_tokenizer: Whether the run has a tokenizer already. Without it there are no results.

    Returns:
        Warnings that name the tasks whose data is missing.

    Raises:
        UserError: If a task cannot be used, no task has its data, or results were made with other settings.
    """
    tasks, missing = read_tasks(settings)
    for task, splits in tasks:
        check_splits(task, splits)
        for documents in splits.values():
            check_labels(task, documents)
    if has_tokenizer and folder.tasks.is_dir():
        for arm, last_phase in last_phases.items():
            check_last_phase(arm, last_phase, folder)
        check_results(settings, tasks, folder, arms=last_phases)
    return [f"{task} will be left out: {reason}" for task, reason in missing.items()]


def check_last_phase(arm: str, last_phase: str, folder: RunFolder) -> None:
    """Check that the exported model of an arm that has been fine-tuned is still that of its last phase.

    Raises:
        UserError: If the arm now ends in another phase.
    """
    about = folder.model(arm) / ABOUT
    before = read_json(about).get("phase", last_phase) if about.exists() else last_phase
    if before != last_phase and (folder.tasks / arm).is_dir():
        raise UserError(
            f"{folder.tasks / arm} holds results of arm {arm} when it ended in {before}, and it now ends in "
            f"{last_phase}; give the arm another name, or delete that folder."
        )


def check_results(
    settings: FineTuning, tasks: Iterable[tuple[Task, Splits]], folder: RunFolder, arms: Collection[str]
) -> None:
    """Check that existing results were made with the same protocols and documents.

    Raises:
        UserError: If new results could not be compared with them.
    """
    options = Options(tuple(settings.learning_rates), settings.patience, settings.pooling, settings.precision)
    for task, splits in tasks:
        for path in folder.tasks.glob(f"*/{task.name}/settings.json"):
            if path.parent.parent.name in ("base", *arms):
                model = read_json(path)["model"]
                check(path, settings_of(task, options, model, data_fingerprint(splits)))

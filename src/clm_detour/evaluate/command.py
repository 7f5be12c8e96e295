"""`clm-detour evaluate`: tasks are read, every model fine-tuned on all of them, and the summary, tables and figure written.

RUN/MODEL/TASK/SEED.json, ...   see `clm_detour.evaluate.finetune.run`
RUN/summary.json                see `clm_detour.evaluate.summary`
RUN/table.md, .tex              a row a model
RUN/table.csv                   a line a score, see `clm_detour.evaluate.tables.as_csv`
RUN/left_out.csv                what the scores are without, a line a task and reason
RUN/differences.png             each pair of models, task by task; not there where only one has scores
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from clm_detour.config.protocols import changed
from clm_detour.config.schema import FineTuning
from clm_detour.evaluate.finetune.experiment import Experiment, documents_of, finished, run_all
from clm_detour.evaluate.finetune.run import Options
from clm_detour.evaluate.sample_tasks import SAMPLE_TASKS
from clm_detour.evaluate.summary import TaskRow, summarise
from clm_detour.evaluate.tables import write_tables
from clm_detour.evaluate.tasks import TASKS, Splits, Task, from_yaml, load, locate
from clm_detour.evaluate.tasks.left_out import by_limit, of_data, of_records
from clm_detour.records.evaluation import Summary
from clm_detour.records.store import as_json, write
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json
from clm_detour.utils.progress import progress, warn
from clm_detour.utils.rules import one_of

Read = list[tuple[Task, Splits]]


def evaluate_models(
    settings: FineTuning, models: Mapping[str, str], folder: Path, name: str
) -> tuple[Summary, int]:
    """Run what is not finished yet, and write what all of it says.

    Args:
        models: name -> folder or hub id, in the order of display.
        folder: where everything is written.

    Returns:
        The summary, and how many runs were made.

    Raises:
        UserError: a task or model cannot be used, none of the tasks is there, or `folder` has results made with other settings.
    """
    tasks, missing = read_tasks(settings)
    for task, reason in missing.items():
        warn(f"{task} is left out: {reason}")
    options = Options(tuple(settings.learning_rates), settings.patience, settings.pooling, settings.precision)
    experiment = Experiment(models, tasks, settings.seeds, options, folder)
    made = run_all(experiment, settings.jobs)
    records = finished(experiment)
    for line in dict.fromkeys(line for record in records for line in remarks(record)):
        warn(line)
    summary = summary_of(name, experiment, records, settings, missing)
    path = folder / "summary.json"
    if (
        made or not path.exists() or read_json(path) != as_json(summary)
    ):  # an old file stays old: the page is made from it
        write_tables(summary, folder)
        write_figure(summary, folder)
        write(summary, path)
    return summary, made


def read_tasks(settings: FineTuning) -> tuple[Read, dict[str, str]]:
    """The tasks that are there, with their protocols as they are to be run; and why the others are not.

    Raises:
        UserError: a name is not known, what is there cannot be read, or there is nothing.
    """
    found: Read = []
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
        chosen = documents_of(splits, settings.documents)
        task = dataclasses.replace(
            task, protocol=protocol, skipped={**task.skipped, **by_limit(splits, chosen)}
        )
        found.append((task, chosen))
    if not found:
        raise UserError(
            f"None of the tasks is there ({', '.join(missing)}); set data (evaluate.tasks.data in a recipe) to the folder that holds their folders."
        )
    return found, missing


def probe_models(
    models: Sequence[str], tasks: Sequence[str] | None, data: str | None, documents: int
) -> dict[str, dict[str, Any]]:
    """Probe each model on the tasks; see `clm_detour.evaluate.probes`.

    Raises:
        UserError: a model or task cannot be used.
    """
    from clm_detour.evaluate.probes import probe
    from clm_detour.model.pretrained import check_encoder

    read, missing = read_tasks(FineTuning(tasks=list(tasks or SAMPLE_TASKS), data=data, documents=documents))
    for task, why in missing.items():
        warn(f"{task} is left out: {why}")
    for path in models:
        check_encoder(path)
    found = {}
    with progress("Probes", len(models), "models") as advance:
        for path in models:
            found[path] = probe(path, read)
            advance(1)
    return found


def probe_table(found: Mapping[str, Mapping[str, Any]]) -> RichTable:
    """A row a model; a dash where nothing was measured."""
    columns = list(dict.fromkeys(name for row in found.values() for name in row["scores"]))
    table = RichTable("model", *columns, "seconds", box=None)
    for path, row in found.items():
        values = (row["scores"].get(name) for name in columns)
        scores = ["\u2013" if value is None else f"{value:.1f}" for value in values]
        table.add_row(path, *scores, f"{row['seconds']:.1f}")
    return table


def known_tasks(settings: FineTuning) -> dict[str, Task]:
    """The registered tasks, the bundled ones, and those that the file itself describes."""
    own = {name: from_yaml(name, described) for name, described in settings.own_tasks.items()}
    return {**TASKS, **SAMPLE_TASKS, **own}


def remarks(record: Mapping[str, Any]) -> list[str]:
    """What a run read in windows, and that it diverged; a sentence each. What it left out stands below the table."""
    found = []
    where, limit = f"{record['model']} on {record['task']}", record["protocol"]["max_tokens"]
    documents = sum(record["documents"].values())
    windowed = sum(counts.get("documents_in_windows", 0) for counts in record["counts"].values())
    if windowed:
        found.append(
            f"{where}: {windowed} of {documents} texts are longer than {limit} tokens and are read in overlapping windows."
        )
    chosen = record["best"]["learning_rate"]
    losses = [each["loss"] for each in record["rounds"] if each["learning_rate"] == chosen]
    if not all(map(math.isfinite, losses)):
        found.append(
            f"{where}, seed {record['seed']}: training at {chosen} diverged, its loss is not finite; set a lower learning_rate."
        )
    return found


def summary_of(
    name: str,
    experiment: Experiment,
    records: list[dict[str, Any]],
    settings: FineTuning,
    missing: Mapping[str, str],
) -> Summary:
    """Return the summary of the records of all runs."""
    scores: dict[str, dict[str, dict[int, float]]] = {}
    for record in records:
        if record["score"] is not None:
            by_seed = scores.setdefault(record["model"], {}).setdefault(record["task"], {})
            by_seed[record["seed"]] = 100 * record["score"]
    models = [
        {
            "name": model,
            "path": path,
            "minutes": sum(record["seconds"] for record in records if record["model"] == model) / 60,
            "flops": sum(record["flops"] for record in records if record["model"] == model),
        }
        for model, path in experiment.models.items()
    ]
    rows = [
        TaskRow(
            task.name,
            task.language,
            task.kind,
            task.metric,
            len(splits["test"]),
            of_data(task, splits) | of_records([one for one in records if one["task"] == task.name]),
        )
        for task, splits in experiment.tasks
    ]
    return summarise(
        name,
        models,
        rows,
        scores,
        settings.groups,
        missing,
        settings.equivalence_points,
        settings.paper_bootstrap,
    )


def write_figure(summary: Summary, folder: Path) -> None:
    """differences.png; matplotlib is slow to import."""
    from clm_detour.evaluate.figure import write_differences

    write_differences(summary, folder / "differences.png")

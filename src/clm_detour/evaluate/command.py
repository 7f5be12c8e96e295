"""`clm-detour evaluate`: fine-tune every model on every task, then write summary, tables and figure.

RUN/MODEL/TASK/SEED.json, ...   see `clm_detour.evaluate.finetune.run`
RUN/summary.json                see `clm_detour.evaluate.summary`
RUN/table.md, .tex              one row a model
RUN/table.csv                   one line a score, see `clm_detour.evaluate.tables.as_csv`
RUN/left_out.csv                what the scores leave out, one line a task and reason
RUN/differences.png             each pair of models, task by task; only if two models have scores
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clm_detour.config.schema import FineTuning
from clm_detour.evaluate.finetune.experiment import Experiment, run_all
from clm_detour.evaluate.finetune.run import RunOptions
from clm_detour.evaluate.read_tasks import read_tasks
from clm_detour.evaluate.summary import TaskRow, summarize
from clm_detour.evaluate.tables import write_tables
from clm_detour.evaluate.tasks.left_out import count_left_out, count_unread_in_runs
from clm_detour.model.precision import best_device, computed_precision
from clm_detour.records.evaluation import Summary
from clm_detour.records.store import as_json, write
from clm_detour.utils.files import read_json
from clm_detour.utils.parallel import LOCAL, Engine, Worker, parallel_map
from clm_detour.utils.progress import warn


def evaluate_models(
    settings: FineTuning, models: Mapping[str, str], folder: Path, name: str, engine: Engine = LOCAL
) -> tuple[Summary, int]:
    """Make all runs that are not finished, and write the results of all runs.

    Args:
        models: Folder or hub id of each model by its name, in the order of display.
        folder: Folder of the results.
        name: Name of the evaluation.
        engine: Where the runs are made: on this machine, or on a cluster.

    Returns:
        The summary, and the number of runs that were made.

    Raises:
        UserError: If a task or model cannot be used, no task's data is there, or `folder` has results made
            with other settings.
    """
    tasks, missing = read_tasks(settings)
    for task, reason in missing.items():
        warn(f"{task} is left out: {reason}")
    with engine.serving([folder], list(models.values())):
        precision = chosen_precision(settings.precision)
        options = RunOptions(tuple(settings.learning_rates), settings.patience, settings.pooling, precision)
        experiment = Experiment(models, tasks, settings.seeds, options, folder)
        made = run_all(experiment, settings.jobs)
    records = experiment.records()
    for line in [*windows_of(records, models), *diverged_of(records)]:
        warn(line)
    summary = make_summary(name, experiment, records, settings, missing)
    path = folder / "summary.json"
    # An unchanged summary keeps its date, because the report is made again when it is newer.
    if made or not path.exists() or read_json(path) != as_json(summary):
        write_tables(summary, folder)
        write_figure(summary, folder)
        write(summary, path)
    return summary, made


def chosen_precision(asked: str) -> str:
    """Return the precision of the runs. A warning is printed if it is not the one that was asked for.

    It depends on the GPUs of the machines that make the runs.
    """
    [(precision, reason)] = parallel_map(precision_here, [asked], on_gpus=True)
    if precision != asked:
        warn(f"Tasks are computed in {precision} ({reason}).")
    return precision


def precision_here(_: object, asked: str, worker: Worker) -> tuple[str, str]:
    """Return the precision in which this machine computes when a config asks for one, and the reason."""
    return computed_precision(asked, best_device())


def windows_of(records: Sequence[Mapping[str, Any]], models: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each task with texts that are read in windows.

    It names the models if they do not all read the same number of texts so, as tokenizers differ.
    """
    found: dict[str, list[str]] = {}
    for record in records:
        windowed = sum(counts.get("documents_in_windows", 0) for counts in record["counts"].values())
        if windowed:
            line = (
                f"{record['task']}: {windowed} of {sum(record['documents'].values())} texts are longer than "
                f"{record['protocol']['max_tokens']} tokens and are read in overlapping windows"
            )
            found.setdefault(line, []).append(record["model"])
    for line, names in found.items():
        of_all = set(names) == set(models)
        yield f"{line}." if of_all else f"{line} ({', '.join(dict.fromkeys(names))})."


def diverged_of(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each run whose training diverged."""
    for record in records:
        chosen = record["best"]["learning_rate"]
        losses = [each["loss"] for each in record["rounds"] if each["learning_rate"] == chosen]
        if not all(map(math.isfinite, losses)):
            yield (
                f"{record['model']} on {record['task']}, seed {record['seed']}: training at {chosen} "
                "diverged, its loss is not finite; set a lower learning_rate."
            )


def make_summary(
    name: str,
    experiment: Experiment,
    records: list[dict[str, Any]],
    settings: FineTuning,
    missing: Mapping[str, str],
) -> Summary:
    """Return the content of `summary.json`, given the records of all finished runs."""
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
            count_left_out(task, splits)
            | count_unread_in_runs([one for one in records if one["task"] == task.name]),
        )
        for task, splits in experiment.tasks
    ]
    return summarize(
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
    """Write differences.png."""
    from clm_detour.evaluate.figure import write_differences  # altair takes long to import

    write_differences(summary, folder / "differences.png")

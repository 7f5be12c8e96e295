"""All runs of an evaluation: every model on every task with every seed. Finished runs are not repeated.

The first seed comes first, so that an interrupted evaluation has compared all models on all tasks with its
first seeds. Several runs at a time are made by worker processes, which take the GPUs in turn and share the
cores, or by the machines of a cluster. Each run has a lock, so several commands may work on one evaluation at
the same time, on any machines that share its folder.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clm_detour.evaluate.finetune.run import Run, RunOptions, fine_tune, run_settings
from clm_detour.evaluate.finetune.task_model import check_splits
from clm_detour.evaluate.tasks.task import Splits, Task
from clm_detour.measure.encoder import needs_fresh_head
from clm_detour.model.pretrained import check_encoder
from clm_detour.utils.allocator import keep_freed_memory
from clm_detour.utils.files import file_checksum, read_json
from clm_detour.utils.locks import claimed, locked
from clm_detour.utils.parallel import Worker, current_cluster, parallel_map
from clm_detour.utils.progress import Advance, progress, warn
from clm_detour.utils.started_with import check, check_or_write

MODEL_FILES = ("config.json", "tokenizer.json", "*.safetensors")


@dataclass(frozen=True)
class Experiment:
    """Models, tasks and seeds to be combined into runs.

    Args:
        models: Folder or hub id of each model by its name.
        tasks: Tasks with the protocols to be used, and their documents.
        seeds: Seeds of all tasks; None for those of each task's protocol.
        folder: Folder of the results.
    """

    models: Mapping[str, str]
    tasks: Sequence[tuple[Task, Splits]]
    seeds: Sequence[int] | None
    options: RunOptions
    folder: Path

    def runs(self) -> Iterator[Run]:
        """Yield all runs in the order in which they are made."""
        seeds = self.seeds or list(
            dict.fromkeys(seed for task, _ in self.tasks for seed in task.protocol.seeds)
        )
        for seed in seeds:
            for task, _ in self.tasks:
                if self.seeds is None and seed not in task.protocol.seeds:
                    continue
                for model, path in self.models.items():
                    yield Run(model, path, task, seed, self.options, self.folder / model / task.name)

    def records(self) -> list[dict[str, Any]]:
        """Return the records of all finished runs."""
        return [read_json(run.record) for run in self.runs() if run.record.exists()]


def run_all(experiment: Experiment, jobs: int | None = None) -> int:
    """Make all runs that are not finished, and return how many this process has made.

    Runs that another process is making are waited for, and made here if it ends without them.

    Args:
        jobs: Largest number of runs at a time. None: one, or on a cluster as many as it has room for.

    Raises:
        UserError: If a model or a task's data cannot be used, or if there are results made with other
            settings.
    """
    for task, splits in experiment.tasks:
        check_splits(task, splits)
    check_settings(experiment)
    documents = {task.name: splits for task, splits in experiment.tasks}
    made = 0
    while runs := [run for run in experiment.runs() if not run.record.exists()]:
        results = make_runs(runs, documents, jobs)
        made += sum(result is not None for result in results)
        elsewhere = [run for run, result in zip(runs, results, strict=True) if result is None]
        if elsewhere:
            wait_for(elsewhere[0])
    return made


def wait_for(run: Run) -> None:
    """Wait until the process that makes a run has ended, or is done with it."""
    with locked(run.lock, f"Another process makes {run.name}"):
        if run.record.exists():
            run.lock.unlink(missing_ok=True)  # it is made anew by those who wait


def make_runs(runs: Sequence[Run], documents: Mapping[str, Splits], jobs: int | None) -> Sequence[str | None]:
    """Make runs. Return the result of each in one line, or None if another process makes or has made it."""
    if current_cluster() is None and (jobs in (None, 1) or len(runs) == 1):
        return make_here(runs, documents)
    return make_in_workers(runs, documents, jobs or len(runs))


def make_here(runs: Sequence[Run], documents: Mapping[str, Splits]) -> list[str | None]:
    """Make runs one after the other in this process."""
    lines = []
    with progress("Fine-tuning", len(runs), "runs") as advance:
        for run in runs:
            keep_freed_memory()
            lines.append(make_unless_taken(run, documents, count_in_note(run.name, advance)))
            advance(1, note=lines[-1])
    return lines


def count_in_note(name: str, advance: Advance) -> Callable[..., None]:
    """Return a function that is called once a step, and shows their number in the note of a bar over runs."""
    steps = itertools.count(1)
    return lambda *amount: advance(0, note=f"{name}, step {next(steps)}")


def make_in_workers(runs: Sequence[Run], documents: Mapping[str, Splits], jobs: int) -> Sequence[str | None]:
    """Make runs in worker processes, which receive the documents once."""
    try:
        with progress("Fine-tuning", len(runs), "runs") as advance:
            return parallel_map(
                make_in_worker,
                runs,
                documents,
                processes=jobs,
                on_gpus=True,
                on_result=lambda line: advance(1, note=line),
                remedy="set jobs lower",
            )
    except BaseException:
        for run in runs:
            if run.lock.exists():  # it was begun
                remove_what_is_left(run)
        raise


def remove_what_is_left(run: Run) -> None:
    """Delete what a worker process left when it was killed, unless another process makes the run now."""
    with claimed(run.lock) as free:
        if free:
            run.remove_half_written()


def make_in_worker(documents: Mapping[str, Splits], run: Run, worker: Worker) -> str | None:
    """Make one run with this worker's share of the cores."""
    keep_freed_memory()
    torch.set_num_threads(worker.cores)
    return make_unless_taken(run, documents, lambda *amount, **note: None)


def make_unless_taken(run: Run, documents: Mapping[str, Splits], advance: Callable[..., None]) -> str | None:
    """Make one run, and return its result in one line, or None if another process makes or has made it.

    The lock of the run also holds between machines, and ends with the process that makes it.
    """
    with claimed(run.lock) as free:
        if not free or run.record.exists():
            return None
        run.remove_half_written()
        line = result_line(fine_tune(run, documents[run.task.name], advance))
        run.lock.unlink(missing_ok=True)  # whoever waits for it finds the record
    return line


def result_line(record: Mapping[str, Any]) -> str:
    """Return the result of a finished run in one line."""
    score = "none" if record["score"] is None else f"{100 * record['score']:.1f}"
    return f"{record['model']} {record['task']} {record['seed']}: {record['metric']} {score}"


def check_settings(experiment: Experiment) -> None:
    """Check that all models can be used and that earlier results were made with the same settings.

    Raises:
        UserError: If a model does not exist, is not an encoder, or has no tokenizer or weights that can be
            opened, or if there are results made with other settings.
    """
    configs = {path: check_encoder(path)[0] for path in experiment.models.values()}
    models = {name: model_fingerprint(path, configs[path]) for name, path in experiment.models.items()}
    for path, config in configs.items():
        if needs_fresh_head(path, config):
            warn(f"{path} has no prediction head; each run initializes one, which only fine-tuning trains.")
    for act in (check, check_or_write):
        for task, splits in experiment.tasks:
            data = data_fingerprint(splits)
            for name, model in models.items():
                file = experiment.folder / name / task.name / "settings.json"
                act(file, run_settings(task, experiment.options, model, data))


def model_fingerprint(path: str, config: Any) -> str:
    """Return a hash of a folder's config, tokenizer and weights, or the commit of a hub id."""
    if not Path(path).is_dir():
        return f"{path}@{getattr(config, '_commit_hash', None)}"
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(file for pattern in MODEL_FILES for file in Path(path).glob(pattern)):
        digest.update(f"{file.name} {file_checksum(file)}".encode())
    return digest.hexdigest()


def data_fingerprint(splits: Splits) -> str:
    """Return a hash of all documents."""
    digest = hashlib.blake2b(digest_size=16)
    for split, documents in sorted(splits.items()):
        for document in documents:
            digest.update(repr((split, document)).encode())
    return digest.hexdigest()


def limit_documents(splits: Splits, limit: int | None) -> Splits:
    """Return at most `limit` documents of each split, evenly spaced: some data sets are sorted."""
    return {
        split: documents
        if limit is None or len(documents) <= limit
        else [documents[place * len(documents) // limit] for place in range(limit)]
        for split, documents in splits.items()
    }

"""All runs of an evaluation: every model on every task with every seed, several at a time; those that are finished are left alone.

Seeds come first, so that an evaluation that is interrupted has compared all models on all tasks with its first seeds. Documents go to
the processes once. With several GPUs each process takes one of them, in turn.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from clm_detour.evaluate.finetune.problem import check_splits
from clm_detour.evaluate.finetune.run import Options, Run, do_run, settings_of
from clm_detour.evaluate.tasks.task import Reading, Splits, Task
from clm_detour.measure.encoder import needs_fresh_head
from clm_detour.model.pretrained import check_encoder
from clm_detour.utils.environment import usable_cores
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import file_checksum, read_json
from clm_detour.utils.interrupt import interrupts_held, leave_interrupts_to_parent
from clm_detour.utils.progress import progress, warn
from clm_detour.utils.signals import REQUEUE, SIGNALS, on_signals
from clm_detour.utils.started_with import check, check_or_write

MODEL_FILES = ("config.json", "tokenizer.json", "*.safetensors")
IN_PROCESS: dict[str, Splits] = {}  # the tasks' documents, in a worker


@dataclass(frozen=True)
class Experiment:
    """What is to be run.

    Args:
        models: name -> folder or hub id.
        tasks: with their protocols as they are to be run, and their documents.
        seeds: None: those of each task's protocol.
    """

    models: Mapping[str, str]
    tasks: Sequence[tuple[Task, Splits]]
    seeds: Sequence[int] | None
    options: Options
    folder: Path

    def runs(self) -> Iterator[Run]:
        """All runs, in the order in which they are made."""
        seeds = self.seeds or list(
            dict.fromkeys(seed for task, _ in self.tasks for seed in task.protocol.seeds)
        )
        for seed in seeds:
            for task, _ in self.tasks:
                if self.seeds is None and seed not in task.protocol.seeds:
                    continue
                for model, path in self.models.items():
                    yield Run(model, path, task, seed, self.options, self.folder / model / task.name)


def run_all(experiment: Experiment, jobs: int = 1) -> int:
    """Make the runs that are not finished.

    Returns:
        How many were made.

    Raises:
        UserError: a model or a task's data cannot be used, or there are results made with other settings.
    """
    for task, splits in experiment.tasks:
        check_splits(task, splits)
    agree_on_settings(experiment)
    todo = [run for run in experiment.runs() if not run.record.exists()]
    if not todo:
        return 0
    documents = {task.name: splits for task, splits in experiment.tasks}
    if jobs == 1 or len(todo) == 1:
        run_here(todo, documents)
    else:
        run_in_processes(todo, documents, min(jobs, len(todo)))
    return len(todo)


def run_here(todo: Sequence[Run], documents: Mapping[str, Splits]) -> None:
    """One after the other, in this process."""
    from clm_detour.utils.allocator import keep_freed_memory

    keep_freed_memory()
    for number, run in enumerate(todo, 1):
        with progress(f"{number}/{len(todo)} {run.name}", None, "steps") as advance:
            record = do_run(without_reader(run), documents[run.task.name], advance)
            advance(0, note=result_of(record))


def run_in_processes(todo: Sequence[Run], documents: Mapping[str, Splits], jobs: int) -> None:
    """Several at a time; the first error stops what has not begun."""
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(jobs):
        numbers.put(number)
    pool = ProcessPoolExecutor(jobs, context, start_worker, (numbers, jobs, dict(documents)))
    try:
        with progress("Fine-tuning", len(todo), "runs") as advance:
            with interrupts_held():
                futures = [pool.submit(work, without_reader(run)) for run in todo]
            for future in as_completed(futures):
                advance(1, note=future.result())
    except (KeyboardInterrupt, SystemExit):
        stop_workers()
        raise
    except BrokenProcessPool:
        raise UserError(
            "A process ended without a word, most often for want of memory; run again to go on, with fewer jobs."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def stop_workers() -> None:
    """End the runs that are under way: they may take hours."""
    for process in multiprocessing.active_children():
        process.terminate()


def start_worker(numbers: Any, jobs: int, documents: dict[str, Splits]) -> None:
    """A process takes its share of the machine, before torch looks at it."""
    leave_interrupts_to_parent()
    number = numbers.get()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(place) for place in range(gpus())]
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    import torch

    from clm_detour.utils.allocator import keep_freed_memory

    torch.set_num_threads(max(1, usable_cores() // jobs))
    keep_freed_memory()
    IN_PROCESS.update(documents)


def gpus() -> int:
    """GPUs of this machine, counted without touching them."""
    import torch

    return torch.cuda.device_count()


def work(run: Run) -> str:
    """Make a run in a worker. A worker that is told to stop removes what it has written by half, and ends."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:  # the pool sends one too once another worker has ended
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(REQUEUE)

    try:
        with on_signals(stop):
            return result_of(do_run(run, IN_PROCESS[run.task.name], lambda *amount, **note: None))
    except SystemExit:
        os._exit(REQUEUE)  # the pool would take it for a result, and give this process the next run


def result_of(record: Mapping[str, Any]) -> str:
    """One finished run in a line."""
    score = "none" if record["score"] is None else f"{100 * record['score']:.1f}"
    return f"{record['model']} {record['task']} {record['seed']}: {record['metric']} {score}"


def without_reader(run: Run) -> Run:
    """A run that can be sent to another process: how its task is read stays here."""
    return replace(run, task=replace(run.task, read=no_reader))


def no_reader(folder: Path) -> Reading:
    """In place of a task's reader."""
    raise UserError(f"The task's documents were read before; there is nothing to read in {folder}.")


def agree_on_settings(experiment: Experiment) -> None:
    """No result is taken for one that was made with other settings: all folders are checked before the first run.

    Raises:
        UserError: there is no such model, it is no encoder, it has no tokenizer or weights that can be opened, or there are results
            made with other settings.
    """
    configs = {path: check_encoder(path)[0] for path in experiment.models.values()}
    models = {name: fingerprint(path, configs[path]) for name, path in experiment.models.items()}
    for given, config in configs.items():
        if needs_fresh_head(given, config):
            warn(f"{given} has no prediction head; a fresh one is drawn, which only fine-tuning trains.")
    for act in (check, check_or_write):
        for task, splits in experiment.tasks:
            data = data_fingerprint(splits)
            for name, model in models.items():
                path = experiment.folder / name / task.name / "settings.json"
                act(path, settings_of(task, experiment.options, model, data))


def fingerprint(path: str, config: Any) -> str:
    """Of a folder's config, tokenizer and weights; of a hub id the commit that is used, which its config knows."""
    if not Path(path).is_dir():
        return f"{path}@{getattr(config, '_commit_hash', None)}"
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(file for pattern in MODEL_FILES for file in Path(path).glob(pattern)):
        digest.update(f"{file.name} {file_checksum(file)}".encode())
    return digest.hexdigest()


def data_fingerprint(splits: Splits) -> str:
    """Of all documents."""
    digest = hashlib.blake2b(digest_size=16)
    for split, documents in sorted(splits.items()):
        for document in documents:
            digest.update(repr((split, document)).encode())
    return digest.hexdigest()


def finished(experiment: Experiment) -> list[dict[str, Any]]:
    """The records of all runs that are done."""
    return [read_json(run.record) for run in experiment.runs() if run.record.exists()]


def documents_of(splits: Splits, limit: int | None) -> Splits:
    """At most so many documents of each split, evenly spread over it: some sets are sorted by label."""
    return {
        split: documents
        if limit is None or len(documents) <= limit
        else [documents[place * len(documents) // limit] for place in range(limit)]
        for split, documents in splits.items()
    }

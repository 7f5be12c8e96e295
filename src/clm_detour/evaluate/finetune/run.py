"""One fine-tuning run (a model, a task, a seed) and its files. A run is finished once its record exists.

OUT/MODEL/TASK/settings.json           everything that the scores depend on, except the seed
OUT/MODEL/TASK/SEED.predictions.jsonl  one line a test document: its id, the model's answer and the annotation
OUT/MODEL/TASK/SEED.json               the record: scores, rounds, seconds, operations, versions; written last
OUT/MODEL/TASK/.SEED.lock              locked by the process that makes the run, and deleted at its end
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from clm_detour.config.protocols import Kind, recorded
from clm_detour.evaluate.finetune.task_model import ENTITY_KINDS
from clm_detour.evaluate.finetune.training import Prepared, Trained, prepare, train, validation_score
from clm_detour.evaluate.tasks.left_out import count_left_out, count_unread
from clm_detour.evaluate.tasks.task import Document, Entity, Splits, Task
from clm_detour.measure.encoder import load_encoder
from clm_detour.model.precision import fp32_products
from clm_detour.model.pretrained import load_fast_tokenizer, longest_input, read_encoder_config
from clm_detour.utils.environment import describe_environment
from clm_detour.utils.files import atomic_write, write_json


@dataclass(frozen=True)
class RunOptions:
    """The settings that all runs share, besides each task's protocol.

    Args:
        learning_rates: Learning rates to try; each run takes the best one on validation. Empty for the
            protocol's.
        patience: Number of rounds without a better one after which training stops; None for no early
            stopping.
        pooling: `cls` or `mean`; None for each model's own.
        precision: `fp32`, `tf32`, or `bf16` for autocast.
    """

    learning_rates: tuple[float, ...] = ()
    patience: int | None = None
    pooling: str | None = None
    precision: str = "fp32"


@dataclass(frozen=True)
class Run:
    """A run to be made.

    Args:
        path: Folder or hub id of the model.
        folder: Folder of the model's results on the task.
    """

    model: str
    path: str
    task: Task
    seed: int
    options: RunOptions
    folder: Path

    @property
    def record(self) -> Path:
        """The file whose existence shows that the run is finished."""
        return self.folder / f"{self.seed}.json"

    @property
    def predictions(self) -> Path:
        """The file of the answers to the test documents."""
        return self.folder / f"{self.seed}.predictions.jsonl"

    @property
    def lock(self) -> Path:
        """The file that is locked by the process that makes the run."""
        return self.folder / f".{self.seed}.lock"

    @property
    def name(self) -> str:
        """The name shown to the user."""
        return f"{self.model} on {self.task.name}, seed {self.seed}"

    def remove_half_written(self) -> None:
        """Delete temporary files of a process that was killed. The caller must hold the lock of the run."""
        for file in (self.record, self.predictions):
            for left in self.folder.glob(f".{file.name}.tmp*"):
                left.unlink(missing_ok=True)


def fine_tune(run: Run, splits: Splits, advance: Callable[..., None]) -> dict[str, Any]:
    """Train and score a run, write its files and return its record.

    Args:
        advance: Function that is called once a step.

    Raises:
        UserError: If the model cannot be opened, or the task's data does not fit it.
    """
    started = time.monotonic()
    protocol, options = run.task.protocol, run.options
    longest = longest_input(read_encoder_config(run.path))
    max_tokens = min(protocol.max_tokens, longest or protocol.max_tokens)
    prepared = prepare(run.task, splits, load_fast_tokenizer(run.path), max_tokens)
    with fp32_products(options.precision == "tf32"):
        attempts = {
            rate: train(
                prepared,
                lambda: load_encoder(run.path, options.pooling)[0],
                dataclasses.replace(protocol, learning_rate=rate),
                run.seed,
                advance,
                options.patience,
                options.precision == "bf16",
            )
            for rate in options.learning_rates or (protocol.learning_rate,)
        }
    record = make_record(run, prepared, max_tokens, attempts)
    record["seconds"] = round(time.monotonic() - started, 2)
    chosen = attempts[record["best"]["learning_rate"]]
    write_predictions(run.predictions, run.task.kind, splits["test"], chosen.answers)
    write_json(run.record, record)
    return record


def make_record(
    run: Run, prepared: Prepared, max_tokens: int, attempts: Mapping[float, Trained]
) -> dict[str, Any]:
    """Return the record of a run, with scores between 0 and 1.

    Args:
        attempts: The result of each learning rate.
    """
    metric, chosen_by = run.task.metric, run.task.selects_by
    rate = max(attempts, key=lambda rate: validation_score(attempts[rate].best, chosen_by))
    best = attempts[rate]
    return {
        "model": run.model,
        "path": run.path,
        "task": run.task.name,
        "kind": run.task.kind,
        "metric": metric,
        "seed": run.seed,
        "score": best.scores.get(metric),  # a model whose training diverged has no AUROC
        "scores": {"validation": best.best["validation"], "test": best.scores},
        "best": {"learning_rate": rate, "step": best.best["step"], "epoch": best.best["epoch"]},
        "rounds": [
            {"learning_rate": rate, **each} for rate, tried in attempts.items() for each in tried.rounds
        ],
        "protocol": recorded(run.task.protocol) | {"max_tokens": max_tokens},
        "options": dataclasses.asdict(run.options),
        "documents": {split: len(documents) for split, documents in prepared.splits.items()},
        "counts": prepared.counts,
        "left_out": count_left_out(run.task, prepared.splits) | count_unread(prepared.counts, max_tokens),
        "flops": sum(tried.flops for tried in attempts.values()),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "environment": environment(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@cache
def environment() -> dict[str, Any]:
    """Return versions and machine, which are looked up once a process."""
    return describe_environment()


def write_predictions(path: Path, kind: Kind, gold: Sequence[Document], answers: Sequence[Document]) -> None:
    """Write one line for each test document: its id, the model's answer and the annotation.

    No text is written. An id is that of the data set, or it gives the position of the document in its file;
    docs/evaluation.md explains it for each format.

    Args:
        gold: The test documents, in the order of `answers`.
    """
    with atomic_write(path, "w") as file:
        for one, answer in zip(gold, answers, strict=True):
            line: dict[str, Any] = {"id": one.id}
            if kind in ENTITY_KINDS:
                line |= {"entities": spans(answer.entities), "gold_entities": spans(one.entities)}
            else:
                line |= {"labels": list(answer.labels), "gold_labels": list(one.labels)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def spans(entities: Sequence[Entity]) -> list[list[Any]]:
    """Return [start, end, label] of each entity, with its pieces as a fourth item if there are several."""
    return [
        [one.start, one.end, one.label, *([list(map(list, one.fragments))] if one.fragments else [])]
        for one in entities
    ]


def run_settings(task: Task, options: RunOptions, model: str, data: str) -> dict[str, Any]:
    """Return everything that a run's scores depend on, except its seed.

    Args:
        model: Fingerprint of the model's files.
        data: Fingerprint of the documents.
    """
    protocol = {key: value for key, value in recorded(task.protocol).items() if key != "seeds"}
    return {
        "model": model,
        "data": data,
        "kind": task.kind,
        "labels": list(task.labels),
        "metric": task.metric,
        **({} if task.negative is None else {"negative": task.negative}),
        "protocol": protocol,
        "options": {**dataclasses.asdict(options), "learning_rates": list(options.learning_rates)},
    }

"""One (model, task, seed): trained, scored, written down. It is finished once its JSON is there.

OUT/MODEL/TASK/settings.json           all that its scores depend on, but for the seed
OUT/MODEL/TASK/SEED.predictions.jsonl  a line for each test document: its id, the model's answer and what the data set says
OUT/MODEL/TASK/SEED.json               scores, rounds, seconds, operations, versions; written last
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

from clm_detour.config.protocols import Kind, Protocol
from clm_detour.evaluate.finetune.problem import ENTITY_KINDS
from clm_detour.evaluate.finetune.training import Prepared, Trained, prepare, train, validation_score
from clm_detour.evaluate.tasks.left_out import of_data, of_model
from clm_detour.evaluate.tasks.task import Document, Entity, Splits, Task
from clm_detour.measure.encoder import load_encoder
from clm_detour.model.pretrained import load_fast_tokenizer, longest_input, read_encoder_config
from clm_detour.utils.environment import describe_environment
from clm_detour.utils.files import atomic_write, write_json


@dataclass(frozen=True)
class Options:
    """How all runs are made, beside each task's protocol.

    Args:
        learning_rates: a grid; each run takes the rate that is best on validation. Empty: the protocol's.
        patience: stop after so many rounds without a better one.
        pooling: `cls` or `mean`; None: as each model is made for.
        precision: fp32, or bf16 autocast.
    """

    learning_rates: tuple[float, ...] = ()
    patience: int | None = None
    pooling: str | None = None
    precision: str = "fp32"


@dataclass(frozen=True)
class Run:
    """What is to be done: `path` is the model's folder or hub id, `folder` where its results on the task go."""

    model: str
    path: str
    task: Task
    seed: int
    options: Options
    folder: Path

    @property
    def record(self) -> Path:
        """The JSON that says that it is done."""
        return self.folder / f"{self.seed}.json"

    @property
    def predictions(self) -> Path:
        """The answers."""
        return self.folder / f"{self.seed}.predictions.jsonl"

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.model} on {self.task.name}, seed {self.seed}"


def do_run(run: Run, splits: Splits, advance: Callable[..., None]) -> dict[str, Any]:
    """Train, score and write a run; gives its record.

    Args:
        advance: called once a step.

    Raises:
        UserError: the model cannot be opened, or the task's data does not fit it.
    """
    started = time.monotonic()
    protocol, options = run.task.protocol, run.options
    longest = longest_input(read_encoder_config(run.path))
    max_tokens = min(protocol.max_tokens, longest or protocol.max_tokens)
    prepared = prepare(run.task, splits, load_fast_tokenizer(run.path), max_tokens)

    def attempt(rate: float) -> Trained:
        return train(
            prepared,
            lambda: load_encoder(run.path, options.pooling)[0],
            dataclasses.replace(protocol, learning_rate=rate),
            run.seed,
            advance,
            options.patience,
            options.precision == "bf16",
        )

    rates = options.learning_rates or (protocol.learning_rate,)
    attempts = {rate: attempt(rate) for rate in rates}
    record = describe(run, prepared, max_tokens, attempts)
    record["seconds"] = round(time.monotonic() - started, 2)
    chosen = attempts[record["best"]["learning_rate"]]
    write_predictions(run.predictions, run.task.kind, splits["test"], chosen.answers)
    write_json(run.record, record)
    return record


def describe(
    run: Run, prepared: Prepared, max_tokens: int, attempts: Mapping[float, Trained]
) -> dict[str, Any]:
    """All that is to be said of a run; scores between 0 and 1."""
    metric = run.task.metric
    rate = max(attempts, key=lambda rate: validation_score(attempts[rate].best, metric))
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
        "protocol": dataclasses.asdict(run.task.protocol) | {"max_tokens": max_tokens},
        "options": dataclasses.asdict(run.options),
        "documents": {split: len(documents) for split, documents in prepared.splits.items()},
        "counts": prepared.counts,
        "left_out": of_data(run.task, prepared.splits) | of_model(prepared.counts, max_tokens),
        "flops": sum(tried.flops for tried in attempts.values()),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "environment": environment(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@cache
def environment() -> dict[str, Any]:
    """Versions and machine, looked up once a process."""
    return describe_environment()


def write_predictions(path: Path, kind: Kind, gold: Sequence[Document], answers: Sequence[Document]) -> None:
    """Write a line for each test document: its id, the model's answer, and what the data set says.

    No text is written. An id is the data set's own or says where the document stands in its file; docs/guide.md tells for each format.

    Args:
        gold: the test documents, in the order of `answers`.
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
    """Return [start, end, label] of each entity, and its pieces as a fourth item where there are several."""
    return [
        [one.start, one.end, one.label, *([list(map(list, one.fragments))] if one.fragments else [])]
        for one in entities
    ]


def settings_of(task: Task, options: Options, model: str, data: str) -> dict[str, Any]:
    """All that a run's scores depend on, but for its seed.

    Args:
        model: fingerprint of the model's files.
        data: fingerprint of the documents.
    """
    protocol: Protocol = task.protocol
    changed = {key: value for key, value in dataclasses.asdict(protocol).items() if key != "seeds"}
    return {
        "model": model,
        "data": data,
        "kind": task.kind,
        "labels": list(task.labels),
        "metric": task.metric,
        **({} if task.negative is None else {"negative": task.negative}),
        "protocol": changed,
        "options": {**dataclasses.asdict(options), "learning_rates": list(options.learning_rates)},
    }

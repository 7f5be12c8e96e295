"""Compare our fine-tuning with transformers' Trainer, and packed documents with padded ones.

    python benchmarks/finetune.py trainer --model MINILM --data TASKS GAD NCBI-disease
    python benchmarks/finetune.py packed --data TASKS --tokenizer FOLDER

`trainer` fine-tunes a real encoder on some documents of real tasks, both by our loop and by the Trainer, from
the same weights with the same settings and seeds. It reports test scores and seconds. Both score the
validation split after each epoch, and score the test split with the best weights. The Trainer needs
`accelerate`. It uses AutoModelFor{Token,Sequence}Classification and collators that pad to the longest
document of a batch. Both read the same tokens, so that only the training differs.

`packed` fine-tunes a small ModernBERT with random weights on our network and on AutoModel's, with the same
heads and the same loop.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import transformers
import typer
from record import PACKAGES, path_of, record
from rich.console import Console
from scipy.stats import ttest_ind
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    ModernBertConfig,
    Trainer,
    TrainingArguments,
)

from clm_detour.data.tokenizer import copy_tokenizer, load_tokenizer
from clm_detour.evaluate.finetune.batch import Batch
from clm_detour.evaluate.finetune.experiment import limit_documents
from clm_detour.evaluate.finetune.task_model import ENTITY_KINDS, make_task_model
from clm_detour.evaluate.finetune.training import Prepared, prepare, train
from clm_detour.evaluate.metrics import score
from clm_detour.evaluate.tasks import TASKS, Protocol, load
from clm_detour.measure.encoder import PaddedEncoder, load_encoder
from clm_detour.model import ModernBertForPretraining
from clm_detour.utils.allocator import keep_freed_memory

console = Console(width=150)
app = typer.Typer(add_completion=False)
IGNORED = -100
Data = Annotated[Path, typer.Option(help="The folder with the tasks' folders.")]


def prepared_task(name: str, data: Path, documents: int, tokenizer: Any, max_tokens: int) -> Prepared:
    """Return some documents of each split, evenly spaced, as examples.

    The validation split gets half as many documents as the training split, and the test split twice as many.
    """
    task, splits = load(TASKS[name], data)
    sizes = {"train": documents, "validation": documents // 2, "test": 2 * documents}
    taken = {split: limit_documents({split: splits[split]}, size)[split] for split, size in sizes.items()}
    return prepare(task, taken, tokenizer, max_tokens)


def timed(run: Callable[..., Mapping[str, float]], *arguments: Any) -> dict[str, Any]:
    """Return test scores in percent, and the seconds of wall clock and of processor time that they took."""
    clock, processor = time.perf_counter(), time.process_time()
    scores = run(*arguments)
    return {
        "scores": {name: 100 * value for name, value in scores.items()},
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - processor,
    }


def ours(path: str, prepared: Prepared, protocol: Protocol, seed: int) -> Mapping[str, float]:
    """Fine-tune with our loop, and return the test scores."""
    return train(prepared, lambda: load_encoder(path)[0], protocol, seed, lambda *_, **__: None).scores


class Rows(torch.utils.data.Dataset):
    """Our examples, in the form that transformers reads."""

    def __init__(self, prepared: Prepared, split: str):
        self.examples = prepared.examples[split]
        self.kind = prepared.task.kind

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: int) -> dict[str, Any]:
        example = self.examples[place]
        if self.kind not in ENTITY_KINDS:
            return {"input_ids": example.ids, "labels": example.target.tolist()}
        labels = [IGNORED] * len(example.ids)
        for position, tag in zip(example.places, example.target.tolist(), strict=True):
            labels[position] = tag
        return {"input_ids": example.ids, "labels": labels}


def theirs(
    path: str, prepared: Prepared, protocol: Protocol, seed: int, tokenizer: Any
) -> Mapping[str, float]:
    """Fine-tune with transformers' Trainer, and return the test scores."""
    task, entities = prepared.task, prepared.task.kind in ENTITY_KINDS
    transformers.set_seed(seed)
    kind = AutoModelForTokenClassification if entities else AutoModelForSequenceClassification
    labels = 1 + 2 * len(task.labels) if entities else len(task.labels)
    problem = {} if task.kind != "multi_label" else {"problem_type": "multi_label_classification"}
    model = kind.from_pretrained(path, num_labels=labels, **problem)
    collators = (transformers.DataCollatorWithPadding, transformers.DataCollatorForTokenClassification)
    pad = collators[entities]

    def scored(found: Any, split: str = "validation") -> Mapping[str, float]:
        return score(task, prepared.splits[split], answers_of(prepared, split, found.predictions))

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, seed=seed, learning_rate=protocol.learning_rate, weight_decay=protocol.weight_decay,
            per_device_train_batch_size=protocol.batch_size, num_train_epochs=protocol.epochs,
            per_device_eval_batch_size=2 * protocol.batch_size, eval_strategy="epoch", save_strategy="epoch",
            save_only_model=True, load_best_model_at_end=True, metric_for_best_model=task.metric,
            report_to=[], disable_tqdm=True, use_cpu=not torch.cuda.is_available(), logging_strategy="no",
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, pad(tokenizer), Rows(prepared, "train"), Rows(prepared, "validation"),
            compute_metrics=scored,
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        trainer.compute_metrics = None  # it scores the validation split
        return scored(trainer.predict(Rows(prepared, "test")), "test")


def answers_of(prepared: Prepared, split: str, logits: np.ndarray) -> list[Any]:
    """Return the documents with the answers that the Trainer's logits give, read as our own answers are."""
    task, examples = prepared.task, prepared.examples[split]
    encoder: Any = nn.Module()  # never called: a task model only reads answers here
    encoder.hidden_size, encoder.dropout, encoder.init_output_layer = 1, 0.0, lambda layer: None
    model = make_task_model(task, encoder, prepared.splits[split], examples)
    if task.kind in ENTITY_KINDS:
        answers = [
            row[example.places].argmax(-1).tolist() for row, example in zip(logits, examples, strict=True)
        ]
    else:
        answers = logits.tolist()
    return model.read(prepared.splits[split], examples, answers)


@app.command()
def trainer(
    tasks: Annotated[list[str], typer.Argument(help="Names of tasks.")],
    model: Annotated[str, typer.Option(help="A folder with a real encoder.")],
    data: Data,
    documents: int = 256,
    epochs: int = 6,
    batch_size: int = 8,
    seeds: Annotated[int, typer.Option(help="Number of seeds, from 42; today's record is continued.")] = 5,
    max_tokens: int = 64,
    learning_rate: float = 2e-4,
) -> None:
    """Compare our fine-tuning with transformers' Trainer, in turns."""
    keep_freed_memory()
    transformers.utils.logging.set_verbosity_error()
    _, tokenizer = load_encoder(model)
    protocol = Protocol(
        learning_rate=learning_rate, epochs=epochs, batch_size=batch_size, max_tokens=max_tokens
    )
    warm_up(model, tasks[0], data, tokenizer, protocol)
    for name in tasks:
        prepared = prepared_task(name, data, documents, tokenizer, max_tokens)
        settings = {
            "documents": {split: len(each) for split, each in prepared.splits.items()},
            "protocol": dataclasses.asdict(protocol) | {"seeds": None},
            "metric": prepared.task.metric,
            "threads": torch.get_num_threads(),
            "model": Path(model).name,
            "counts": prepared.counts,
        }
        rows = recorded(name, settings)
        for seed in range(42 + len(rows), 42 + seeds):
            of_theirs = timed(theirs, model, prepared, protocol, seed, tokenizer)
            rows.append(
                {
                    "seed": seed,
                    "ours": timed(ours, model, prepared, protocol, seed),
                    "theirs": of_theirs,
                }
            )
            content = {"settings": settings, "runs": rows, **compared(rows, prepared.task.metric)}
            record(f"finetune-trainer-{name}", content, (*PACKAGES, "accelerate", "mosaicml"))


def recorded(name: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs of an interrupted call of today with these settings."""
    path = path_of(f"finetune-trainer-{name}")
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))["results"]
    return content["runs"] if content["settings"] == json.loads(json.dumps(settings)) else []


def warm_up(model: str, name: str, data: Path, tokenizer: Any, protocol: Protocol) -> None:
    """Fine-tune briefly with both, so that work that a process does only once is not timed."""
    prepared = prepared_task(name, data, 8, tokenizer, protocol.max_tokens)
    short = dataclasses.replace(protocol, epochs=1)
    ours(model, prepared, short, 0)
    theirs(model, prepared, short, 0, tokenizer)


def compared(rows: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Return means and deviations over seeds, Welch's test of their difference, and the ratios of seconds."""
    scores = {who: [row[who]["scores"][metric] for row in rows] for who in ("ours", "theirs")}
    found: dict[str, Any] = {who: {"mean": np.mean(each)} for who, each in scores.items()}
    if len(rows) > 1:
        for who, each in scores.items():
            found[who]["std"] = np.std(each, ddof=1)
        found["p of the difference"] = float(ttest_ind(*scores.values(), equal_var=False).pvalue)
    for kind in ("seconds", "cpu_seconds"):
        total = {who: sum(row[who][kind] for row in rows) for who in scores}
        found[f"theirs over ours, {kind}"] = total["theirs"] / total["ours"]
    console.print(found)
    return found


@app.command()
def packed(
    data: Data,
    tokenizer: Annotated[str, typer.Option(help="A folder with ModernBERT's tokenizer.")],
    tasks: Annotated[str, typer.Option(help="Names of tasks, separated by commas.")] = "HoC,NCBI-disease",
    documents: int = 64,
    hidden: int = 384,
    layers: int = 6,
    rounds: int = 3,
) -> None:
    """Compare training steps on packed documents and on padded ones, in turns."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), tokenizer, hidden, layers)
        encoder, loaded = load_encoder(folder)
        # AutoModel has no prediction head, which saves it a little time.
        both = {"ours": encoder, "theirs": PaddedEncoder(folder, None, loaded)}
        for name in tasks.split(","):
            prepared = prepared_task(name, data, documents, loaded, 512)
            steps = {who: Steps(encoder, prepared) for who, encoder in both.items()}
            for each in steps.values():
                each.run()  # not timed
            seconds: dict[str, list[float]] = {who: [] for who in both}
            for _ in range(rounds):
                for who, each in steps.items():
                    started = time.perf_counter()
                    each.run()
                    seconds[who].append(time.perf_counter() - started)
            report(name, prepared, seconds, hidden, layers)


class Steps:
    """Training steps over all batches of 16 documents, in order."""

    def __init__(self, encoder: Any, prepared: Prepared):
        torch.manual_seed(0)
        examples = prepared.examples["train"]
        model: Any = make_task_model(prepared.task, encoder, prepared.splits["train"], examples)
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)
        self.batches = [
            Batch(examples[first : first + 16], torch.device("cpu")) for first in range(0, len(examples), 16)
        ]

    def run(self) -> None:
        """Train for one epoch."""
        for batch in self.batches:
            self.model.loss(batch).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


def write_model(folder: Path, tokenizer: str, hidden: int, layers: int) -> None:
    """Write the folder of a ModernBERT with random weights."""
    loaded = load_tokenizer(tokenizer)
    torch.manual_seed(0)
    config = ModernBertConfig(
        hidden_size=hidden, intermediate_size=3 * hidden // 2, num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        pad_token_id=loaded.pad, cls_token_id=loaded.cls, sep_token_id=loaded.sep,
    )  # fmt: skip
    ModernBertForPretraining(config).save_pretrained(folder)
    copy_tokenizer(tokenizer, folder)


def report(name: str, prepared: Prepared, seconds: dict[str, list[float]], hidden: int, layers: int) -> None:
    """Print the seconds of a task, and write them to benchmarks/results."""
    lengths = [len(example.ids) for example in prepared.examples["train"]]
    rows = [lengths[first : first + 16] for first in range(0, len(lengths), 16)]
    medians = {who: float(np.median(each)) for who, each in seconds.items()}
    result = {
        "hidden": hidden, "layers": layers, "documents": len(lengths), "tokens": sum(lengths),
        "padded_tokens": sum(len(row) * max(row) for row in rows), "seconds": seconds,
        "threads": torch.get_num_threads(), "theirs over ours, seconds": medians["theirs"] / medians["ours"],
    }  # fmt: skip
    console.print(name, result)
    record(f"finetune-packed-{name}", result)


if __name__ == "__main__":
    app()

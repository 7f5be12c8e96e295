"""One training run on one task; the weights of the best validation round answer the test split."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from clm_detour.config.protocols import Protocol
from clm_detour.evaluate.finetune.batch import Batch, EpochBatches, Example, by_length
from clm_detour.evaluate.finetune.loop import FitSettings, fit
from clm_detour.evaluate.finetune.task_model import (
    ENTITY_KINDS,
    TaskModel,
    check_splits,
    count_too_wide,
    make_examples,
    make_task_model,
)
from clm_detour.evaluate.metrics import score
from clm_detour.evaluate.tasks.task import SPLITS, Document, Splits, Task
from clm_detour.measure.encoder import Encoder
from clm_detour.model.precision import best_device

ROUNDS_OF_STEPS = 20  # validations in a run whose length is given in steps


@dataclass(frozen=True)
class Prepared:
    """A task's splits as examples for one tokenizer, with counts of what was cut in each split."""

    task: Task
    splits: Splits
    examples: Mapping[str, Sequence[Example]]
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Trained:
    """The result of a training run.

    Args:
        rounds: Step, epoch, mean training loss and validation scores of each round.
        best: The round whose weights answered the test split; the first one of several equally good ones.
        scores: Scores on the test split, between 0 and 1.
        answers: The test documents with the model's answers.
        flops: Operations of all training and scoring.
    """

    rounds: list[dict[str, Any]]
    best: dict[str, Any]
    scores: dict[str, float]
    answers: list[Document]
    flops: int


def prepare(task: Task, splits: Splits, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Prepared:
    """Encode all splits.

    Raises:
        UserError: If a split is empty, a label is not one of the task's, or the test split cannot be scored.
    """
    examples, counts = {}, {}
    check_splits(task, splits)
    for split in SPLITS:
        examples[split], counts[split] = make_examples(task, splits[split], tokenizer, max_tokens)
        if task.kind == "nested_entities":
            counts[split]["too_wide_entities"] = count_too_wide(examples[split], examples["train"])
    return Prepared(task, splits, examples, counts)


def train(
    prepared: Prepared,
    make_encoder: Callable[[], Encoder],
    protocol: Protocol,
    seed: int,
    advance: Callable[..., None],
    patience: int | None = None,
    bf16: bool = False,
) -> Trained:
    """Fine-tune a new encoder. On a CPU the same arguments give the same bits.

    Args:
        patience: Number of rounds without a better one after which training stops; None for no early
            stopping.
    """
    task, examples = prepared.task, prepared.examples
    device = best_device()
    batches = EpochBatches(examples["train"], protocol.batch_size, seed, device)
    steps, validation_steps = length_of(protocol, len(batches))
    torch.manual_seed(seed)
    model = make_task_model(task, make_encoder(), prepared.splits["train"], examples["train"])
    module = cast(nn.Module, model).to(device)
    rounds: list[dict[str, Any]] = []
    best_weights: dict[str, Tensor] = {}

    def evaluate(split: str) -> tuple[dict[str, float], list[Document]]:
        documents = prepared.splits[split]
        outputs = predict(model, examples[split], 2 * protocol.batch_size, device, bf16)
        answers = model.read(documents, examples[split], outputs)
        return score(task, documents, answers, beliefs(task, outputs)), answers

    def validate(step: int, loss: float) -> bool:
        scores, _ = evaluate("validation")
        rounds.append({"step": step, "epoch": step / len(batches), "loss": loss, "validation": scores})
        best = best_round(rounds, task.selects_by)
        if rounds[best] is rounds[-1]:
            best_weights.update(
                {name: weight.detach().cpu().clone() for name, weight in module.state_dict().items()}
            )
        return patience is None or len(rounds) - 1 - best < patience

    settings = FitSettings(
        steps=steps, learning_rate=protocol.learning_rate, head_learning_rate=protocol.head_learning_rate,
        weight_decay=protocol.weight_decay, warmup=protocol.warmup, seed=seed, clip_norm=protocol.clip_norm,
        bf16=bf16,
    )  # fmt: skip
    fit(module, batches, settings, validation_steps, validate, advance)
    best = rounds[best_round(rounds, task.selects_by)]
    module.load_state_dict(best_weights)
    flops = count_flops(model.encoder, prepared, rounds, protocol.batch_size)
    scores, answers = evaluate("test")
    return Trained(rounds, best, scores, answers, flops)


def length_of(protocol: Protocol, epoch_steps: int) -> tuple[int, list[int]]:
    """Return the number of steps, and the steps after which to validate.

    Unless the protocol says how many steps are between validations, these are the ends of the epochs, or, if
    it gives steps, `ROUNDS_OF_STEPS` evenly spaced ones. The last step is always one of them.
    """
    steps, every = protocol.steps, protocol.validate_every
    if steps is None:
        steps, every = protocol.epochs * epoch_steps, every or epoch_steps
    every = every or math.ceil(steps / ROUNDS_OF_STEPS)
    return steps, [*range(every, steps, every), steps]


def best_round(rounds: Sequence[Mapping[str, Any]], metric: str) -> int:
    """Return the index of the first round with the highest validation score."""
    scores = [validation_score(round, metric) for round in rounds]
    return scores.index(max(scores))


def validation_score(round: Mapping[str, Any], metric: str) -> float:
    """Return a round's validation score, or minus infinity where it is undefined, as AUROC may be."""
    return round["validation"].get(metric, -math.inf)


def beliefs(task: Task, outputs: Sequence[Any]) -> np.ndarray | None:
    """Return (documents, labels) for AUROC, or None for entities.

    Logits of exclusive labels become probabilities, because only their differences have a meaning.
    """
    if task.kind in ENTITY_KINDS:
        return None
    logits = np.array(outputs)
    return softmax(logits, axis=1) if task.kind == "single_label" else logits


@torch.no_grad()
def predict(
    model: TaskModel, examples: Sequence[Example], batch_size: int, device: torch.device, bf16: bool
) -> list[Any]:
    """Return the model's output for each example, in evaluation mode."""
    module = cast(nn.Module, model)
    was_training = module.training
    module.eval()
    outputs: list[Any] = [None] * len(examples)
    for places in by_length(examples, batch_size):
        batch = Batch([examples[place] for place in places], device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for place, output in zip(places, model.predict(batch), strict=True):
                outputs[place] = output
    module.train(was_training)
    return outputs


def count_flops(
    encoder: Encoder, prepared: Prepared, rounds: Sequence[Mapping[str, Any]], batch_size: int
) -> int:
    """Return the operations of training, of all validations and of the test.

    Batches are taken in the order of the documents.
    """

    def once(split: str, training: bool) -> int:
        lengths = [len(example.ids) for example in prepared.examples[split]]
        batches = (lengths[first : first + batch_size] for first in range(0, len(lengths), batch_size))
        return sum(encoder.flops(batch, training) for batch in batches)

    trained = once("train", True) * rounds[-1]["epoch"]
    return round(trained + once("validation", False) * len(rounds) + once("test", False))

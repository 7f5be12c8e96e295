"""One training run on one task: rounds of training and validation, and the test answers of the best round's weights."""

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
from clm_detour.evaluate.finetune.problem import (
    ENTITY_KINDS,
    Problem,
    check_splits,
    make_examples,
    make_problem,
    too_wide,
)
from clm_detour.evaluate.metrics import score
from clm_detour.evaluate.tasks.task import SPLITS, Document, Splits, Task
from clm_detour.measure.encoder import Encoder
from clm_detour.model.precision import best_device

ROUNDS_OF_STEPS = 20  # validations in a run whose length is given in steps


@dataclass(frozen=True)
class Prepared:
    """A task's splits as one tokenizer's examples, and counts of what was cut, by split."""

    task: Task
    splits: Splits
    examples: Mapping[str, Sequence[Example]]
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Trained:
    """What a run gave.

    Args:
        rounds: step, epoch, mean training loss and validation scores of each.
        best: the round whose weights answered the test, the first of equally good ones.
        scores: of the test, between 0 and 1.
        answers: the test documents with what the model says.
        flops: of all training and scoring.
    """

    rounds: list[dict[str, Any]]
    best: dict[str, Any]
    scores: dict[str, float]
    answers: list[Document]
    flops: int


def prepare(task: Task, splits: Splits, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Prepared:
    """Encode all splits.

    Raises:
        UserError: a split is empty, a label is not the task's, or the test cannot be scored.
    """
    examples, counts = {}, {}
    check_splits(task, splits)
    for split in SPLITS:
        examples[split], counts[split] = make_examples(task, splits[split], tokenizer, max_tokens)
        if task.kind == "nested_entities":
            counts[split]["too_wide_entities"] = too_wide(examples[split], examples["train"])
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
    """Fine-tune a fresh encoder. On a CPU the same arguments give the same bits.

    Args:
        patience: stop after so many rounds without a better one; None: never.
    """
    task, examples = prepared.task, prepared.examples
    device = best_device()
    batches = EpochBatches(examples["train"], protocol.batch_size, seed, device)
    steps, ends = length_of(protocol, len(batches))
    torch.manual_seed(seed)
    problem = make_problem(task, make_encoder(), prepared.splits["train"], examples["train"])
    module = cast(nn.Module, problem).to(device)
    rounds: list[dict[str, Any]] = []
    kept: dict[str, Tensor] = {}

    def scored(split: str) -> tuple[dict[str, float], list[Document]]:
        documents = prepared.splits[split]
        found = answer(problem, examples[split], 2 * protocol.batch_size, device, bf16)
        said = problem.read(documents, examples[split], found)
        return dict(score(task, documents, said, beliefs(task, found))), said

    def after_round(step: int, loss: float) -> bool:
        scores, _ = scored("validation")
        rounds.append({"step": step, "epoch": step / len(batches), "loss": loss, "validation": scores})
        best = best_round(rounds, task.metric)
        if rounds[best] is rounds[-1]:
            kept.update({name: weight.detach().cpu().clone() for name, weight in module.state_dict().items()})
        return patience is None or len(rounds) - 1 - best < patience

    settings = FitSettings(
        steps=steps, learning_rate=protocol.learning_rate, head_learning_rate=protocol.head_learning_rate,
        weight_decay=protocol.weight_decay, warmup=protocol.warmup, seed=seed, bf16=bf16,
    )  # fmt: skip
    fit(module, batches, settings, ends, after_round, advance)
    best = rounds[best_round(rounds, task.metric)]
    module.load_state_dict(kept)
    flops = count_flops(problem.encoder, prepared, rounds, protocol.batch_size)
    scores, answers = scored("test")
    return Trained(rounds, best, scores, answers, flops)


def length_of(protocol: Protocol, epoch_steps: int) -> tuple[int, list[int]]:
    """Steps of a run, and after which of them it is validated: every epoch, or a fixed number of times if steps are given."""
    if protocol.steps is None:
        return protocol.epochs * epoch_steps, [epoch_steps * (epoch + 1) for epoch in range(protocol.epochs)]
    every = math.ceil(protocol.steps / ROUNDS_OF_STEPS)
    return protocol.steps, [*range(every, protocol.steps, every), protocol.steps]


def best_round(rounds: Sequence[Mapping[str, Any]], metric: str) -> int:
    """The first round with the highest validation score."""
    scores = [validation_score(round, metric) for round in rounds]
    return scores.index(max(scores))


def validation_score(round: Mapping[str, Any], metric: str) -> float:
    """A round's score, to be compared with others'; one without it, as AUROC may be undefined, comes last."""
    return round["validation"].get(metric, -math.inf)


def beliefs(task: Task, answers: Sequence[Any]) -> np.ndarray | None:
    """Documents x labels, for AUROC. Logits of labels that exclude each other say something only beside each other, so they become probabilities."""
    if task.kind in ENTITY_KINDS:
        return None
    logits = np.array(answers)
    return softmax(logits, axis=1) if task.kind == "single_label" else logits


@torch.no_grad()
def answer(
    problem: Problem, examples: Sequence[Example], batch_size: int, device: torch.device, bf16: bool
) -> list[Any]:
    """What the model says of each example, in evaluation mode."""
    module = cast(nn.Module, problem)
    was_training = module.training
    module.eval()
    found: list[Any] = [None] * len(examples)
    for places in by_length(examples, batch_size):
        batch = Batch([examples[place] for place in places], device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for place, said in zip(places, problem.answers(batch), strict=True):
                found[place] = said
    module.train(was_training)
    return found


def count_flops(
    encoder: Encoder, prepared: Prepared, rounds: Sequence[Mapping[str, Any]], batch_size: int
) -> int:
    """Operations of the epochs trained, the validations, and the test; batches are taken in the order of the documents."""

    def once(split: str, training: bool) -> int:
        lengths = [len(example.ids) for example in prepared.examples[split]]
        batches = (lengths[first : first + batch_size] for first in range(0, len(lengths), batch_size))
        return sum(encoder.flops(batch, training) for batch in batches)

    trained = once("train", True) * rounds[-1]["epoch"]
    return round(trained + once("validation", False) * len(rounds) + once("test", False))

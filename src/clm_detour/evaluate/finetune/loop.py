"""The training loop of fine-tuning: AdamW, a linear schedule and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import nn
from transformers import set_seed

from clm_detour.evaluate.finetune.batch import EpochBatches


@dataclass(frozen=True)
class FitSettings:
    """The settings that, with the data and the initial weights, determine the trained weights.

    Args:
        head_learning_rate: Peak learning rate of the parameters of `head`; None for that of the others.
        weight_decay: Weight decay of matrices; biases and norms have none.
        warmup: Share of the steps over which the learning rate rises linearly from 0. It then falls linearly
            to 0.
        clip_norm: Largest norm of the gradient; larger ones are scaled down to it.
        bf16: Compute the loss under bf16 autocast.
    """

    steps: int
    learning_rate: float
    head_learning_rate: float | None
    weight_decay: float
    warmup: float
    seed: int
    clip_norm: float = 1.0
    bf16: bool = False


def fit(
    model: Any,
    batches: EpochBatches,
    settings: FitSettings,
    validation_steps: Collection[int],
    validate: Callable[[int, float], bool],
    advance: Callable[..., None],
) -> None:
    """Train `model` in place.

    Args:
        model: A module with `loss(batch)` and a submodule `head`, on the device of the batches.
        validation_steps: Numbers of steps after which `validate` is called.
        validate: Is given the step and the mean training loss since the last call; training ends when it
            returns False.
        advance: Is called once a step.
    """
    set_seed(settings.seed)  # dropout
    optimizer = make_optimizer(model, settings)
    model.train()
    losses = []
    # Every epoch repeats the order of the first one, as in 0.1.0, whose scores must not change.
    stream = (batch for _ in count() for batch in batches.epoch(0))
    for step, batch in zip(range(1, settings.steps + 1), stream, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule_factor(step - 1, settings)
        optimizer.zero_grad()
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=settings.bf16):
            loss = model.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        advance(1)
        losses.append(loss.detach())
        if step in validation_steps:
            mean = float(torch.stack(losses).mean())
            losses.clear()
            if not validate(step, mean):
                break
    optimizer.zero_grad()


def make_optimizer(model: Any, settings: FitSettings) -> torch.optim.AdamW:
    """Return AdamW as transformers' Trainer configures it, with a separate learning rate for the head."""
    head = {id(parameter) for parameter in model.head.parameters()}
    head_rate = settings.head_learning_rate or settings.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        peak = head_rate if id(parameter) in head else settings.learning_rate
        decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((peak, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}
            for (peak, decay), parameters in groups.items()
        ],
        fused=True,
    )


def schedule_factor(step: int, settings: FitSettings) -> float:
    """Return the learning rate at a step, from 0 on, as a share of its peak (a linear schedule)."""
    warmup = math.ceil(settings.warmup * settings.steps)
    if step < warmup:
        return step / warmup
    return (settings.steps - step) / max(settings.steps - warmup, 1)

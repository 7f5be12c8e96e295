"""Fine-tuning's training loop: one Composer `Trainer.fit` for a run, over batches that the caller makes.

A trainer takes some 10 ms to set up after a process' first (1.2 s, and 5 s for the import), and adds 1 to 7 % to runs of 20 to 100
short steps on a CPU (docs/log.md), so many short runs go through one process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from composer import Callback, DataSpec, Logger, State, Trainer
from composer.algorithms import GradientClipping
from composer.models import ComposerModel
from torch import Tensor, nn

from clm_detour.train.phase import close


class Batches(Protocol):
    """An endless stream in epochs."""

    batch_size: int

    def __len__(self) -> int:
        """Batches in an epoch."""

    def epoch(self, number: int) -> Iterator[Any]:
        """The batches of one epoch, each with its `examples`."""


@dataclass(frozen=True)
class FitSettings:
    """What a run's weights depend on, besides data and start.

    Args:
        head_learning_rate: of the parameters of `head`; None: the same.
        weight_decay: of matrices; biases and norms have none.
        warmup: share of the steps over which the rate rises from 0; then it falls in a straight line to 0.
        clip_norm: of the gradient.
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
    problem: Any,
    batches: Batches,
    settings: FitSettings,
    rounds: Collection[int],
    after_round: Callable[[int, float], bool],
    advance: Callable[..., None],
) -> None:
    """Train `problem` (a module with `loss(batch)` and `head`) in place; it ends on the GPU if there is one.

    Args:
        rounds: steps after which `after_round(step, mean loss since the last round)` is called; training ends when it returns False.
        advance: called once a step.
    """
    optimizer = make_optimizer(problem, settings)
    trainer = Trainer(
        model=LossModel(problem, settings.bf16),
        train_dataloader=DataSpec(
            Stream(batches),
            split_batch=lambda batch, size: [batch],
            get_num_samples_in_batch=lambda batch: len(batch.examples),
        ),
        optimizers=optimizer,
        max_duration=f"{settings.steps}ba",
        device_train_microbatch_size=batches.batch_size,
        precision="fp32",  # LossModel sets its own
        seed=settings.seed,
        algorithms=[GradientClipping(clipping_type="norm", clipping_threshold=settings.clip_norm)],
        callbacks=[Rounds(settings, rounds, after_round, advance)],
        progress_bar=False,
    )
    try:
        trainer.fit()
    finally:
        close(trainer)


def make_optimizer(problem: Any, settings: FitSettings) -> torch.optim.AdamW:
    """AdamW as transformers' Trainer sets it, with a rate of its own for the head."""
    head = {id(parameter) for parameter in problem.head.parameters()}
    head_rate = settings.head_learning_rate or settings.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in problem.parameters():
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


def share_of_peak(step: int, settings: FitSettings) -> float:
    """The rate at a step as a share of its peak: transformers' `linear` schedule."""
    warmup = math.ceil(settings.warmup * settings.steps)
    if step < warmup:
        return step / warmup
    return (settings.steps - step) / max(settings.steps - warmup, 1)


class LossModel(ComposerModel):
    """A problem as Composer wants it."""

    def __init__(self, problem: nn.Module, bf16: bool):
        super().__init__()
        self.problem: Any = problem
        self.bf16 = bf16

    def forward(self, batch: Any) -> Tensor:
        """The loss, () fp32."""
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.bf16):
            return self.problem.loss(batch)

    def loss(self, outputs: Tensor, batch: Any) -> Tensor:
        """What `forward` gave."""
        return outputs


class Stream:
    """Each pass over it is the next epoch."""

    def __init__(self, batches: Batches):
        self.batches = batches
        self.number = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        yield from self.batches.epoch(self.number)
        self.number += 1


class Rounds(Callback):
    """Sets the rate before each step, and calls back after some."""

    def __init__(
        self,
        settings: FitSettings,
        rounds: Collection[int],
        after_round: Callable[[int, float], bool],
        advance: Callable[..., None],
    ):
        self.settings = settings
        self.rounds = set(rounds)
        self.after_round = after_round
        self.advance = advance
        self.losses: list[Tensor] = []

    def batch_start(self, state: State, logger: Logger) -> None:
        """The rate of the step that comes."""
        share = share_of_peak(state.timestamp.batch.value, self.settings)
        for group in state.optimizers[0].param_groups:
            group["lr"] = group["peak"] * share

    def batch_end(self, state: State, logger: Logger) -> None:
        """Count, and at a round's end ask whether to go on."""
        self.advance(1)
        assert isinstance(state.loss, Tensor)
        self.losses.append(state.loss.detach())
        step = state.timestamp.batch.value
        if step in self.rounds:
            loss = float(torch.stack(self.losses).mean())
            self.losses.clear()
            if not self.after_round(step, loss):
                state.stop_training()

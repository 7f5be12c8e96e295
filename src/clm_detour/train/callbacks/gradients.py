"""Clips gradients, and leaves out or stops at a step whose loss or gradients are bad, before any weight has changed."""

from __future__ import annotations

import math

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from torch.distributed.tensor import DTensor

from clm_detour.data.loader import StepBatches
from clm_detour.train.callbacks.checkpoint import Checkpoints
from clm_detour.train.parallel import is_first, sharded_gradient_scale
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import warn

PATIENCE = 10  # bad steps in a row after which it is not the rows but the weights


class Gradients(Callback):
    """Norm and loss of each step, over micro-batches and processes; every process comes to the same decision.

    Args:
        clip: the largest norm of all gradients together, or None.
        on_bad_loss: stop, or skip.
        above: a loss above it is bad too, in nats; None: only what is not finite.

    Attributes:
        norm: of the last step, before clipping.
        bad: whether the last step was left out.
    """

    def __init__(
        self,
        clip: float | None,
        on_bad_loss: str,
        above: float | None,
        batches: StepBatches,
        checkpoints: Checkpoints,
    ):
        self.clip = clip
        self.on_bad_loss = on_bad_loss
        self.above = math.inf if above is None else above
        self.batches = batches
        self.checkpoints = checkpoints
        self.norm = math.nan
        self.bad = False
        self.in_a_row = 0
        self.sums: list[torch.Tensor] = []
        self.scale = 1.0

    def fit_start(self, state: State, logger: Logger) -> None:
        """Learn what sharded gradients must be multiplied by."""
        if state.fsdp_enabled:
            self.scale = sharded_gradient_scale()

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """A new step, or the same once more with smaller micro-batches."""
        self.sums = []

    def after_loss(self, state: State, logger: Logger) -> None:
        """Remember the micro-batch's loss and how many predictions it is the mean of."""
        predicted = sum(state.batch["predicted"])
        loss = state.loss.detach().reshape(())  # type: ignore[union-attr]
        self.sums.append(torch.stack([loss * predicted, torch.full_like(loss, predicted)]))

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Between the backward pass and the optimizer."""
        parameters = [p for p in state.model.parameters() if p.grad is not None]
        if self.scale != 1.0:
            torch._foreach_mul_([p.grad for p in parameters], self.scale)  # type: ignore[misc]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])  # type: ignore[misc]
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        sums = torch.stack(self.sums).sum(0)
        dist.all_reduce(sums, reduce_operation="SUM")
        total, predicted, self.norm = torch.cat([sums, norm.reshape(1)]).tolist()
        loss = total / max(predicted, 1)
        self.bad = not (loss <= self.above and math.isfinite(loss) and math.isfinite(self.norm))
        self.in_a_row = self.in_a_row + 1 if self.bad else 0
        if self.bad:
            self._leave_out(state, loss)
        elif self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)

    def _leave_out(self, state: State, loss: float) -> None:
        step = state.timestamp.batch.value
        first = self.batches.first_row + self.batches.step_rows.before(step)
        last = first + self.batches.step_rows.rows(step) - 1
        what = f"Step {step + 1} (rows {first}..{last} of the stream) has loss {loss:.4g}, gradient norm {self.norm:.4g}"
        if self.on_bad_loss == "stop" or self.in_a_row > PATIENCE:
            raise UserError(f"{what}; {self._stopped(state)}")
        state.optimizers[0].zero_grad(set_to_none=True)  # AdamW passes over what has no gradient
        self.checkpoints.skipped += 1
        if is_first():
            warn(f"{what}: left out.")

    def _stopped(self, state: State) -> str:
        kept = "nothing was trained yet in this phase"
        if state.timestamp.batch.value:
            kept = f"the weights before it are kept in {self.checkpoints.write(state)}"
        if self.on_bad_loss == "skip":
            return f"{PATIENCE} steps in a row were left out before it, so lower the learning rate; {kept}."
        return f"{kept}. Look at these rows, or set train.on_bad_loss=skip to leave such steps out."

    def values(self) -> dict[str, float | int]:
        """For the metrics."""
        return {"gradient_norm": self.norm, "skipped_steps": self.checkpoints.skipped}

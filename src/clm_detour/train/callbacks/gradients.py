"""Clip gradients, and skip a step or stop if its loss or gradients are bad, before any weight has changed."""

from __future__ import annotations

import math

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from torch.distributed.tensor import DTensor

from clm_detour.data.loader import StepBatches
from clm_detour.train.callbacks.checkpoint import Checkpoints
from clm_detour.train.parallel import is_main_process, sharded_gradient_scale
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import warn

PATIENCE = 10  # after so many bad steps in a row the cause is not the rows but the weights


class Gradients(Callback):
    """Computes gradient norm and loss of each step over all processes, so all come to the same decision.

    Args:
        clip: Largest norm of all gradients together; None turns clipping off.
        on_bad_loss: `stop` or `skip`.
        above: A loss above this value is bad too, in nats; None: only a loss that is not finite is bad.

    Attributes:
        norm: Gradient norm of the last step, before clipping.
        bad: Whether the last step was skipped.
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
        """Measure the factor for sharded gradients."""
        for parameter in state.model.parameters():
            if isinstance(parameter, DTensor):
                self.scale = sharded_gradient_scale(parameter.device_mesh.get_group())
                break

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Reset the sums for a new step, or for the same step with smaller micro-batches."""
        self.sums = []

    def after_loss(self, state: State, logger: Logger) -> None:
        """Add the loss of a micro-batch and the number of its predictions to the sums."""
        predicted = sum(state.batch["predicted"])
        loss = state.loss.detach().reshape(())  # type: ignore[union-attr]
        self.sums.append(torch.stack([loss * predicted, torch.full_like(loss, predicted)]))

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Check and clip the gradients, between the backward pass and the optimizer."""
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
            self._skip(state, loss)
        elif self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)

    def _skip(self, state: State, loss: float) -> None:
        step = state.timestamp.batch.value
        first = self.batches.first_row + self.batches.step_rows.before(step)
        last = first + self.batches.step_rows.rows(step) - 1
        rows, numbers = f"rows {first}..{last}", f"loss {loss:.4g}, gradient norm {self.norm:.4g}"
        what = f"Step {step + 1} ({rows} of the stream) has {numbers}"
        if self.on_bad_loss == "stop" or self.in_a_row > PATIENCE:
            raise UserError(f"{what}; {self._stopped(state)}")
        state.optimizers[0].zero_grad(set_to_none=True)  # AdamW skips parameters without a gradient
        self.checkpoints.skipped += 1
        if is_main_process():
            warn(f"{what}: skipped.")

    def _stopped(self, state: State) -> str:
        kept = "this phase has not trained a step yet"
        if state.timestamp.batch.value:
            kept = f"the weights before it are in {self.checkpoints.write(state)}"
        if self.on_bad_loss == "skip":
            return f"{PATIENCE} steps in a row were skipped before it, so lower the learning rate; {kept}."
        return f"{kept}. Look at these rows, or set train.on_bad_loss=skip to skip such steps."

    def values(self) -> dict[str, float | int]:
        """Return the values for the metrics."""
        return {"gradient_norm": self.norm, "skipped_steps": self.checkpoints.skipped}

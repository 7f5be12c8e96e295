"""Speed of this process: tokens per second, MFU, fill of the rows, and time spent waiting for data."""

from __future__ import annotations

import time

import torch
from composer.core import Callback, State
from composer.loggers import Logger

from clm_detour.plan.hardware import peak_of
from clm_detour.train.composer_model import PretrainingModel


class Throughput(Callback):
    """Measures between two calls of `values`. All processes step together, so one process is representative.

    Args:
        pad: Id of the padding token, which is not a real token.
        peak: Peak of the device in floating-point operations per second; None if it is not known.
    """

    def __init__(self, model: PretrainingModel, pad: int, peak: float | None):
        self.model = model
        self.pad = pad
        self.peak = peak
        self.headline = ""
        self._restart()

    def _restart(self) -> None:
        self.since = self.requested = time.monotonic()
        self.positions = self.real = self.flops = 0
        self.waited = 0.0

    def fit_start(self, state: State, logger: Logger) -> None:
        """Start to measure."""
        self._restart()

    def before_dataloader(self, state: State, logger: Logger) -> None:
        """Note the time at which a batch is requested."""
        self.requested = time.monotonic()

    def after_dataloader(self, state: State, logger: Logger) -> None:
        """Count the tokens and operations of a batch, which is still in host memory."""
        self.waited += time.monotonic() - self.requested
        ids = state.batch["input_ids"]
        self.positions += ids.numel()
        self.real += int((ids != self.pad).sum())
        if self.peak is not None:
            self.flops += self.model.flops_per_batch(state.batch)

    def values(self) -> dict[str, float]:
        """Return the values for the metrics, and start to measure again."""
        seconds = max(time.monotonic() - self.since, 1e-9)
        values = {
            "real_tokens_per_second_per_device": round(self.real / seconds, 1),
            "packing": round(self.real / max(self.positions, 1), 4),
            "data_wait": round(self.waited / seconds, 4),
        }
        if self.peak is not None:
            values["mfu"] = round(self.flops / seconds / self.peak, 4)
        self.headline = headline(values)
        self._restart()
        return values


def headline(values: dict[str, float]) -> str:
    """Return the values for the progress bar, which shows the tokens per second itself."""
    parts = [f"MFU {values['mfu']:.1%}"] if "mfu" in values else []
    return ", ".join([*parts, f"rows {values['packing']:.1%} full", f"data wait {values['data_wait']:.1%}"])


def peak_flops(precision: str) -> float | None:
    """Return the peak of this process's GPU in operations per second; None if it is not known, or on a CPU.

    Args:
        precision: The precision that is computed in: `bf16`, `tf32` or `fp32`.
    """
    return peak_of(torch.cuda.get_device_name(), precision) if torch.cuda.is_available() else None

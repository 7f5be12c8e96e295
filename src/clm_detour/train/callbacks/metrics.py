"""Write metrics.jsonl with one line for each logged step, feed the other loggers and the progress bar."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from composer.core import Callback, State
from composer.loggers import Logger

from clm_detour.records.phase import HeldOutStep, LoggedStep
from clm_detour.records.store import as_line
from clm_detour.train.callbacks.clock import is_last_step, tokens_before
from clm_detour.train.callbacks.gradients import Gradients
from clm_detour.train.callbacks.throughput import Throughput
from clm_detour.train.loggers import PhaseLog
from clm_detour.train.parallel import is_main_process
from clm_detour.utils.files import atomic_write, read_json_lines, writable
from clm_detour.utils.progress import Advance

SMOOTHED = 50  # steps over which the progress bar shows the mean loss


class Metrics(Callback):
    """Writes step, tokens, loss, learning rate, gradient norm, speed, and the shares of the sources so far.

    Args:
        path: File to write. Lines after the step at which the phase resumes are removed first.
        every: Number of steps between lines.
        log: The loggers.
        advance: Advances the progress bar by the tokens of a step.
        shares: Function from the tokens seen in the phase to the share of each source.
    """

    def __init__(
        self,
        path: Path,
        every: int,
        log: PhaseLog,
        advance: Advance,
        shares: Callable[[int], Mapping[str, float]],
        gradients: Gradients,
        throughput: Throughput,
    ):
        self.lines = JsonLines(path)
        self.every = every
        self.log = log
        self.advance = advance
        self.shares = shares
        self.gradients = gradients
        self.throughput = throughput
        self.last_time = 0.0
        self.last_token = 0
        self.losses: deque[float] = deque(maxlen=SMOOTHED)

    def fit_start(self, state: State, logger: Logger) -> None:
        """Remove the lines after the step at which the phase starts or resumes."""
        self.last_time, self.last_token = time.monotonic(), state.timestamp.token.value
        if is_main_process():
            self.advance(self.last_token, earlier=True)
            self.lines.keep(state.timestamp.batch.value)

    def batch_end(self, state: State, logger: Logger) -> None:
        """Write a line every `every` steps and after the last step."""
        if not is_main_process():
            return
        step, tokens = state.timestamp.batch.value, state.timestamp.token.value
        loss = state.total_loss_dict["loss/train/total"]
        if step % self.every == 0 or is_last_step(state):
            self._write(step, tokens, loss, state)
        if math.isfinite(loss):
            self.losses.append(loss)
        mean = f"loss {statistics.fmean(self.losses):.3f}" if self.losses else ""
        note = ", ".join(filter(None, [mean, self.throughput.headline]))
        self.advance(tokens - tokens_before(state), note=note)

    def _write(self, step: int, tokens: int, loss: float, state: State) -> None:
        now = time.monotonic()
        numbers: dict[str, Any] = {
            "loss": loss,
            "learning_rate": state.optimizers[0].param_groups[0]["lr"],
            **self.gradients.values(),
            "tokens_per_second": round((tokens - self.last_token) / max(now - self.last_time, 1e-9), 1),
            **self.throughput.values(),
            "seconds": round(state.timestamp.total_wct.total_seconds(), 2),
        }
        shares = {name: round(share, 4) for name, share in self.shares(tokens).items()}
        self.last_time, self.last_token = now, tokens
        self.lines.append(LoggedStep(step=step, tokens=tokens, **numbers, shares=shares))
        flat = {**numbers, **{f"share/{name}": share for name, share in shares.items()}}
        self.log.log({f"train/{name}": value for name, value in flat.items()}, step, tokens)


class JsonLines:
    """A file of JSON lines, each with a step. Only the main process may write it."""

    def __init__(self, path: Path):
        self.path = path

    def keep(self, step: int) -> None:
        """Remove the lines after `step`, and incomplete lines."""
        kept = [line for line in read_json_lines(self.path) if line["step"] <= step]
        with atomic_write(self.path, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)

    def append(self, record: LoggedStep | HeldOutStep) -> None:
        """Add a line."""
        with writable(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(as_line(record))

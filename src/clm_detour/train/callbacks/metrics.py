"""metrics.jsonl: one line a logged step. Also drives the progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from clm_detour.files import atomic_write, writable
from clm_detour.progress import Advance
from clm_detour.train.callbacks.clock import is_last_step, tokens_before


class Metrics(Callback):
    """Step, tokens, loss, learning rate, speed, and the sources' shares of the phase's tokens so far.

    Args:
        path: the file; lines after the step a run resumes from are dropped first.
        every: steps between lines.
        advance: told the tokens of each step.
        shares: of the sources, as a function of the tokens seen in the phase.
    """

    def __init__(
        self, path: Path, every: int, advance: Advance, shares: Callable[[int], Mapping[str, float]]
    ):
        self.path = path
        self.every = every
        self.advance = advance
        self.shares = shares
        self.last_time = 0.0
        self.last_token = 0

    def fit_start(self, state: State, logger: Logger) -> None:
        """Keep the lines up to the step that the run starts from."""
        self.last_time, self.last_token = time.monotonic(), state.timestamp.token.value
        if dist.get_global_rank() != 0:
            return
        self.advance(self.last_token, earlier=True)
        kept = [line for line in read_lines(self.path) if line["step"] <= state.timestamp.batch.value]
        with atomic_write(self.path, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)

    def batch_end(self, state: State, logger: Logger) -> None:
        """Write a line every `every` steps, and at the last."""
        if dist.get_global_rank() != 0:
            return
        step, tokens = state.timestamp.batch.value, state.timestamp.token.value
        loss = state.total_loss_dict["loss/train/total"]
        self.advance(tokens - tokens_before(state), note=f"loss {loss:.3f}")
        if step % self.every == 0 or is_last_step(state):
            self._write(step, tokens, loss, state)

    def _write(self, step: int, tokens: int, loss: float, state: State) -> None:
        now = time.monotonic()
        line = {
            "step": step,
            "tokens": tokens,
            "loss": loss,
            "learning_rate": state.optimizers[0].param_groups[0]["lr"],
            "tokens_per_second": round((tokens - self.last_token) / max(now - self.last_time, 1e-9), 1),
            "seconds": round(state.timestamp.total_wct.total_seconds(), 2),
            "shares": {name: round(share, 4) for name, share in self.shares(tokens).items()},
        }
        self.last_time, self.last_token = now, tokens
        with writable(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_lines(path: Path) -> list[dict]:
    """The whole lines of a JSONL file that may not exist or may end in half a line."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

"""Finishes the step, writes a checkpoint and leaves when the cluster asks for its machines."""

from __future__ import annotations

from types import FrameType

from composer.core import Callback, State
from composer.loggers import Logger

from clm_detour.train.callbacks.checkpoint import Checkpoints
from clm_detour.train.callbacks.clock import is_last_step
from clm_detour.train.parallel import on_any
from clm_detour.utils.signals import Requeue


class Preemption(Callback):
    """Any process may be asked; all leave after the same step.

    A loader's processes go on, so whoever signals a whole group does not take the data away from the step: they inherit the handler of
    SIGUSR1, and heed SIGTERM only from their trainer (`clm_detour.data.loader`).
    """

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints
        self.asked = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.asked = True

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Leave now, unless the phase is about to end anyway."""
        if not is_last_step(state) and on_any(self.asked):
            written = self.checkpoints.write(state)
            raise Requeue(f"Asked to leave; {written} is written")

    def phase_end(self) -> None:
        """Leave between two phases."""
        if on_any(self.asked):
            raise Requeue("Asked to leave; the phase is finished")

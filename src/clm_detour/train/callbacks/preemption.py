"""Finish the step, write a checkpoint and exit when the cluster asks for its machines back."""

from __future__ import annotations

from types import FrameType

from composer.core import Callback, State
from composer.loggers import Logger

from clm_detour.train.callbacks.checkpoint import Checkpoints
from clm_detour.train.callbacks.clock import is_last_step
from clm_detour.train.parallel import is_true_on_any_process
from clm_detour.utils.signals import Requeue


class Preemption(Callback):
    """Exits all processes after the same step if any of them has received a signal.

    Loader processes continue even if the signal was sent to the whole process group, so the step does not
    lose its data: they inherit the handler of SIGUSR1, and obey SIGTERM only from their trainer
    (`clm_detour.data.loader`).
    """

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints
        self.requested = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.requested = True

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Exit after this step, unless it is the last of the phase."""
        if not is_last_step(state) and is_true_on_any_process(self.requested):
            written = self.checkpoints.write(state)
            raise Requeue(f"Asked to stop; {written} is written")

    def phase_end(self) -> None:
        """Exit between two phases."""
        if is_true_on_any_process(self.requested):
            raise Requeue("Asked to stop; the phase is finished")

"""Writes a checkpoint each time another so many tokens have been trained on."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.train.callbacks.average import Average
from clm_detour.train.callbacks.clock import is_last_step, passed
from clm_detour.train.checkpoints import AVERAGE, MOMENTS, SEAL, STATE, Position, checksums, remove, sealed
from clm_detour.train.optim import save_moments
from clm_detour.train.parallel import is_first, whole_network
from clm_detour.utils.files import atomic_folder, write_json


class Checkpoints(Callback):
    """What stands in `clm_detour.train.checkpoints`, every `every_tokens`.

    Args:
        average: of the weights, where one is kept.
        keep: how many to keep; older ones are deleted once a newer one is sealed.

    Attributes:
        skipped: steps that were left out for their loss; kept up to date by `Gradients`.
        newest: the one that was written last, or that the phase went on from.
    """

    def __init__(
        self,
        folder: Path,
        network: ModernBertForPretraining,
        average: Average | None,
        every_tokens: int,
        keep: int,
    ):
        self.folder = folder
        self.network = network
        self.average = average
        self.every_tokens = every_tokens
        self.keep = keep
        self.skipped = 0
        self.newest: Path | None = None

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Write one if this step passed a multiple of `every_tokens`, unless it is the phase's last."""
        if passed(self.every_tokens, state) and not is_last_step(state):
            self.write(state)

    def write(self, state: State) -> Path:
        """Write a sealed checkpoint of `state`, if it is not there; every process must call it, and none returns before it is sealed.

        Otherwise one that leaves next would make the launcher end the first, half a minute later, in the midst of writing.
        """
        target = self.folder / f"step-{state.timestamp.batch.value:08d}"
        if target == self.newest:  # known to be good: another of its name may be damaged
            return target
        network = whole_network(self.network)
        with atomic_folder(target) if is_first() else nullcontext(target) as temporary:
            save_moments(state.optimizers[0], self.network, temporary / MOMENTS)
            if self.average is not None:
                self.average.save(temporary / AVERAGE)
            if is_first():
                network.save_pretrained(temporary)
                write_json(temporary / STATE, asdict(Position.of(state.timestamp, self.skipped)))
                write_json(temporary / SEAL, checksums(temporary))
        if is_first():
            until_now = [path for path in sealed(self.folder) if path <= target]  # a later one is damaged
            for old in until_now[: -self.keep]:
                remove(old)
        dist.barrier()
        self.newest = target
        return target

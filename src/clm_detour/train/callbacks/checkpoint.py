"""Write checkpoints at regular numbers of tokens."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from composer.core import Callback, State
from composer.loggers import Logger

from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.boundary import OPTIMIZER_STATE
from clm_detour.train.callbacks.average import Average
from clm_detour.train.callbacks.clock import is_last_step, passed
from clm_detour.train.checkpoints import AVERAGE, SEAL, STATE, Position, checksums, remove, sealed
from clm_detour.train.optim import save_optimizer_state
from clm_detour.train.parallel import gather_network, is_main_process, run_on_main_process
from clm_detour.utils.files import atomic_folder, write_json


class Checkpoints(Callback):
    """Writes a checkpoint, as `clm_detour.train.checkpoints` describes it, every `every_tokens` tokens.

    Args:
        average: Moving average of the weights, if there is one.
        keep: Number of checkpoints to keep. Older ones are deleted once a newer one is sealed.

    Attributes:
        skipped: Number of steps that were skipped for their loss. `Gradients` counts them.
        newest: Folder of the checkpoint that was written last, or from which the phase resumed.
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
        """Write a checkpoint if this step passed a multiple of `every_tokens` and is not the last."""
        if passed(self.every_tokens, state) and not is_last_step(state):
            self.write(state)

    def write(self, state: State) -> Path:
        """Write a sealed checkpoint, unless this step has one already. Every process must call it.

        It returns on all processes when the main one has sealed the checkpoint. If one process returned
        earlier and then ended, the launcher would end the main process while it is still writing.

        Raises:
            UserError: If the folder cannot be written, on every process.
        """
        target = self.folder / f"step-{state.timestamp.batch.value:08d}"
        if (
            target == self.newest
        ):  # written or verified by this process; any other folder of that name may be damaged
            return target
        network = gather_network(self.network)
        with atomic_folder(target) if is_main_process() else nullcontext(target) as temporary:
            save_optimizer_state(state.optimizers[0], self.network, temporary / OPTIMIZER_STATE)
            if self.average is not None:
                self.average.save(temporary / AVERAGE)
            if is_main_process():
                network.save_pretrained(temporary)
                write_json(temporary / STATE, asdict(Position.of(state.timestamp, self.skipped)))
                write_json(temporary / SEAL, checksums(temporary))
        run_on_main_process(lambda: self._remove_old(target))
        self.newest = target
        return target

    def _remove_old(self, newest: Path) -> None:
        until_now = [path for path in sealed(self.folder) if path <= newest]  # later ones are damaged
        for old in until_now[: -self.keep]:
            remove(old)

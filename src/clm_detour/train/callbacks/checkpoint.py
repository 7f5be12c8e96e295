"""Checkpoints inside a phase: a Hugging Face folder, the optimizer's moments and the position, sealed with checksums.

    step-00000120/
      config.json  model.safetensors    the weights, whole, whatever number of processes trained them
      optimizer.safetensors             the moments, by parameter name
      state.json                        steps, rows, tokens, seconds
      seal.json                         bytes and checksum of each of these, read back from the disk; written last

A folder is written under a temporary name and renamed. No pickles; it opens at any number of processes, sharded or not. What a step
depends on beside these (rows, masks, dropout, learning rate) follows from the seeds and the position.
"""

from __future__ import annotations

import datetime
import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from composer.core import Callback, State, Timestamp
from composer.loggers import Logger

from clm_detour.errors import UserError
from clm_detour.files import atomic_folder, file_checksum, read_json, write_json
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.progress import console
from clm_detour.train.callbacks.clock import is_last_step, passed
from clm_detour.train.optim import save_moments
from clm_detour.train.parallel import from_first, is_first, whole_network

MOMENTS, STATE, SEAL = "optimizer.safetensors", "state.json", "seal.json"


@dataclass(frozen=True)
class Position:
    """How far a phase has come.

    Args:
        skipped: steps that were left out for their loss.
    """

    step: int
    rows: int
    tokens: int
    seconds: float
    skipped: int = 0

    @classmethod
    def of(cls, clock: Timestamp, skipped: int) -> Position:
        """That of Composer's clock."""
        seconds = clock.total_wct.total_seconds()
        return cls(clock.batch.value, clock.sample.value, clock.token.value, seconds, skipped)

    def clock(self) -> Timestamp:
        """Composer's clock at it."""
        return Timestamp(
            batch=self.step,
            sample=self.rows,
            token=self.tokens,
            batch_in_epoch=self.step,
            sample_in_epoch=self.rows,
            token_in_epoch=self.tokens,
            total_wct=datetime.timedelta(seconds=self.seconds),
        )


class Checkpoints(Callback):
    """Writes a checkpoint each time another `every_tokens` have been trained on.

    Args:
        keep: how many to keep; older ones are deleted once a newer one is sealed.
    """

    def __init__(self, folder: Path, network: ModernBertForPretraining, every_tokens: int, keep: int):
        self.folder = folder
        self.network = network
        self.every_tokens = every_tokens
        self.keep = keep
        self.skipped = 0  # kept up to date by Gradients

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Write one if this step passed a multiple of `every_tokens`, unless it is the phase's last."""
        if passed(self.every_tokens, state) and not is_last_step(state):
            self.write(state)

    def write(self, state: State) -> Path:
        """Write a sealed checkpoint of `state`; every process must call it."""
        target = self.folder / f"step-{state.timestamp.batch.value:08d}"
        network = whole_network(self.network)
        with atomic_folder(target) if is_first() else nullcontext(target) as temporary:
            save_moments(state.optimizers[0], self.network, temporary / MOMENTS)
            if is_first():
                network.save_pretrained(temporary)
                write_json(temporary / STATE, asdict(Position.of(state.timestamp, self.skipped)))
                write_json(temporary / SEAL, checksums(temporary))
        if is_first():
            for old in sealed(self.folder)[: -self.keep]:
                remove(old)
        return target


def checksums(folder: Path) -> dict[str, dict[str, int | str]]:
    """Bytes and BLAKE2b of every file of `folder` but the seal."""
    return {
        path.name: {"bytes": path.stat().st_size, "blake2b": file_checksum(path)}
        for path in sorted(folder.iterdir())
        if path.name != SEAL
    }


def sealed(folder: Path) -> list[Path]:
    """The finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / SEAL).exists())


def remove(path: Path) -> None:
    """Break the seal first, so that a half-deleted checkpoint does not count."""
    (path / SEAL).unlink(missing_ok=True)
    shutil.rmtree(path)


def newest_good(folder: Path) -> Path | None:
    """The newest checkpoint whose bytes are those that were written; damaged ones are passed over with a warning."""
    for path in reversed(sealed(folder)):
        try:
            if checksums(path) == read_json(path / SEAL):
                return path
        except (OSError, UserError):
            pass
        console.print(
            f"[yellow]Passing over {path}: it is damaged (its checksums differ).[/yellow]", soft_wrap=True
        )
    return None


def resume_point(folder: Path) -> Path | None:
    """`newest_good` as the first process sees it."""
    return from_first(newest_good(folder) if is_first() else None)


def clear_leftovers(phase: Path) -> None:
    """Remove from a phase's folder what a killed process left half-written or half-deleted."""
    whole = sealed(phase / "checkpoints")
    broken = [path for path in phase.glob("checkpoints/step-*") if path not in whole]
    for path in [*broken, *phase.glob(".*.tmp*"), *phase.glob("*/.*.tmp*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def read_position(checkpoint: Path) -> Position:
    """How far the phase had come."""
    return Position(**read_json(checkpoint / STATE))

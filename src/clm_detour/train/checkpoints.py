"""Checkpoints inside a phase: a Hugging Face folder, the optimizer's moments and the position, sealed with checksums.

    step-00000120/
      config.json  model.safetensors    the weights, whole, whatever number of processes trained them
      optimizer.safetensors             the moments, by parameter name
      average.safetensors               with train.ema_half_life: the moving average of the weights, by parameter name
      state.json                        steps, rows, tokens, seconds
      seal.json                         bytes and checksum of each of these, read back from the disk; written last

A folder is written under a temporary name and renamed. No pickles; it opens at any number of processes, sharded or not. What a step
depends on beside these (rows, masks, dropout, learning rate) follows from the seeds and the position.
"""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass
from pathlib import Path

from composer.core import Timestamp

from clm_detour.train.parallel import from_first, is_first
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import HALF_WRITTEN, file_checksum, read_json
from clm_detour.utils.progress import warn

MOMENTS, AVERAGE = "optimizer.safetensors", "average.safetensors"
STATE, SEAL = "state.json", "seal.json"


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


@dataclass(frozen=True)
class Checkpoint:
    """One that a phase goes on from."""

    folder: Path
    position: Position


def resume_point(folder: Path) -> Checkpoint | None:
    """The newest good one in `folder`, as the first process sees it."""
    return from_first(newest_good(folder) if is_first() else None)


def newest_good(folder: Path) -> Checkpoint | None:
    """The newest whose bytes are those that were written; damaged ones are passed over with a warning."""
    for path in reversed(sealed(folder)):
        try:
            if checksums(path) == read_json(path / SEAL):
                return Checkpoint(path, Position(**read_json(path / STATE)))
        except (OSError, UserError):
            pass
        warn(f"Passing over {path}: it is damaged (its checksums differ).")
    return None


def sealed(folder: Path) -> list[Path]:
    """The finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / SEAL).exists())


def checksums(folder: Path) -> dict[str, dict[str, int | str]]:
    """Bytes and BLAKE2b of every file of `folder` but the seal."""
    return {
        path.name: {"bytes": path.stat().st_size, "blake2b": file_checksum(path)}
        for path in sorted(folder.iterdir())
        if path.name != SEAL
    }


def remove(path: Path) -> None:
    """Break the seal first, so that a half-deleted checkpoint does not count."""
    (path / SEAL).unlink(missing_ok=True)
    shutil.rmtree(path)


def clear_leftovers(phase: Path) -> None:
    """Remove from a phase's folder what a killed process left half-written or half-deleted, and give back what it was about to replace."""
    for old in [*phase.glob(".*.old"), *phase.glob("*/.*.old")]:
        target = old.with_name(old.name[1 : -len(".old")])
        shutil.rmtree(old) if target.exists() else old.rename(target)
    whole = sealed(phase / "checkpoints")
    broken = [path for path in phase.glob("checkpoints/step-*") if path not in whole]
    for path in [*broken, *phase.glob(HALF_WRITTEN), *phase.glob(f"*/{HALF_WRITTEN}")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

"""Checkpoints inside a phase: a Hugging Face folder with optimizer state, position and checksums.

    step-00000120/
      config.json  model.safetensors    the whole weights, whatever number of processes trained them
      optimizer.safetensors             the optimizer state, by parameter name
      average.safetensors               the moving average of the weights, with train.ema_half_life
      state.json                        number of steps, rows, tokens and seconds
      seal.json                         size and checksum of each file, read back from the disk; written last

A folder is written under a temporary name and renamed. It contains no pickles, and it opens at any number of
processes, sharded or not. Everything else on which a step depends (rows, masks, dropout, learning rate)
follows from the seeds and the position.
"""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass
from pathlib import Path

from composer.core import Timestamp

from clm_detour.train.parallel import broadcast, is_main_process
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import HALF_WRITTEN, file_checksum, read_json
from clm_detour.utils.progress import warn

AVERAGE, STATE, SEAL = "average.safetensors", "state.json", "seal.json"


@dataclass(frozen=True)
class Position:
    """The number of steps, rows, tokens and seconds of a phase so far.

    Args:
        skipped: Number of steps that were skipped for their loss.
    """

    step: int
    rows: int
    tokens: int
    seconds: float
    skipped: int = 0

    @classmethod
    def of(cls, clock: Timestamp, skipped: int) -> Position:
        """Return the position of Composer's clock."""
        seconds = clock.total_wct.total_seconds()
        return cls(clock.batch.value, clock.sample.value, clock.token.value, seconds, skipped)

    def clock(self) -> Timestamp:
        """Return Composer's clock at this position."""
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
    """A checkpoint from which a phase resumes."""

    folder: Path
    position: Position


def resume_point(folder: Path) -> Checkpoint | None:
    """Return the newest undamaged checkpoint in a folder, as the main process sees it."""
    return broadcast(newest_undamaged(folder) if is_main_process() else None)


def newest_undamaged(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint whose checksums are right. Damaged ones are skipped with a warning."""
    for path in reversed(sealed(folder)):
        try:
            if checksums(path) == read_json(path / SEAL):
                return Checkpoint(path, Position(**read_json(path / STATE)))
        except (OSError, UserError):
            pass
        warn(f"Skipping {path}: it is damaged (its checksums differ).")
    return None


def sealed(folder: Path) -> list[Path]:
    """Return the folders of finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / SEAL).exists())


def checksums(folder: Path) -> dict[str, dict[str, int | str]]:
    """Return size and BLAKE2b checksum of every file in a folder except the seal."""
    return {
        path.name: {"bytes": path.stat().st_size, "blake2b": file_checksum(path)}
        for path in sorted(folder.iterdir())
        if path.name != SEAL
    }


def remove(path: Path) -> None:
    """Delete a checkpoint, its seal first, so that a partly deleted checkpoint does not count as finished."""
    (path / SEAL).unlink(missing_ok=True)
    shutil.rmtree(path)


def clear_leftovers(phase: Path) -> None:
    """Clean the folder of a phase after a killed process.

    Files and folders that are partly written or partly deleted are removed. A folder that was about to be
    replaced is restored.
    """
    for old in [*phase.glob(".*.old"), *phase.glob("*/.*.old")]:
        target = old.with_name(old.name[1 : -len(".old")])
        shutil.rmtree(old) if target.exists() else old.rename(target)
    finished = sealed(phase / "checkpoints")
    unfinished = [path for path in phase.glob("checkpoints/step-*") if path not in finished]
    for path in [*unfinished, *phase.glob(HALF_WRITTEN), *phase.glob(f"*/{HALF_WRITTEN}")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

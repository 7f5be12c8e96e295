"""Checkpoints inside a phase: written to a temporary name, sealed with a checksum, the last few kept.

Composer's format holds pickles, so load only those that you wrote. What passes from one phase to the next is safetensors.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from composer.utils.checkpoint import save_checkpoint

from clm_detour.files import file_checksum, read_json, writable, write_json
from clm_detour.progress import console
from clm_detour.train.callbacks.clock import is_last_step, tokens_before


class Checkpoints(Callback):
    """Writes `step-N.pt` and its seal `step-N.json` each time another `every_tokens` have been trained on.

    Args:
        keep: how many to keep; older ones are deleted once a newer one is sealed.
    """

    def __init__(self, folder: Path, every_tokens: int, keep: int):
        self.folder = folder
        self.every_tokens = every_tokens
        self.keep = keep

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Write one if this step passed a multiple of `every_tokens`, unless it is the phase's last."""
        before, now = tokens_before(state), state.timestamp.token.value
        if now // self.every_tokens > before // self.every_tokens and not is_last_step(state):
            self.write(state)

    def write(self, state: State) -> None:
        """Write a sealed checkpoint of `state`; every rank must call it."""
        target = self.folder / f"step-{state.timestamp.batch.value:08d}.pt"
        temporary = target.with_name(f".tmp-{target.name}")  # Composer goes by the suffix
        first_rank = dist.get_global_rank() == 0
        try:
            with writable(target), disk_errors():
                save_checkpoint(state, str(temporary))
                if first_rank:
                    seal(temporary, target)
                    for old in sealed(self.folder)[: -self.keep]:
                        remove(old)
        finally:
            if first_rank:
                temporary.unlink(
                    missing_ok=True
                )  # half a checkpoint would fill the disk that had no room for it


@contextmanager
def disk_errors() -> Iterator[None]:
    """torch's zip writer reports a full disk as a RuntimeError; make it the OSError that it is."""
    try:
        yield
    except RuntimeError as error:
        if "inline_container" not in str(error):
            raise
        raise OSError(errno.ENOSPC, "the disk is full or failing") from error


def seal(temporary: Path, target: Path) -> None:
    """Put the checkpoint on the disk under its name, then the checksum that makes it count."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)
    write_json(
        target.with_suffix(".json"), {"bytes": target.stat().st_size, "blake2b": file_checksum(target)}
    )


def sealed(folder: Path) -> list[Path]:
    """The finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*.pt") if path.with_suffix(".json").exists())


def remove(path: Path) -> None:
    """Break the seal first, so that a half-deleted checkpoint does not count."""
    path.with_suffix(".json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def newest_good(folder: Path) -> Path | None:
    """The newest checkpoint whose bytes are those that were written; damaged ones are passed over with a warning."""
    for path in reversed(sealed(folder)):
        record = read_json(path.with_suffix(".json"))
        if path.stat().st_size == record["bytes"] and file_checksum(path) == record["blake2b"]:
            return path
        console.print(f"[yellow]Passing over {path}: it is damaged (its checksum differs).[/yellow]")
    return None

"""Settings that the command and its processes share, in a file of their folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from clm_detour.records.store import read, write

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Settings:
    """The settings of the checks.

    Args:
        folder: Folder for everything that is written.
        device: `cuda` or `cpu`.
        processes: Number of processes of the checks that need several.
        compiles: Whether layers are compiled.
        shape: Keys of a recipe that say how large a step is (`shape.shape_of`).
    """

    folder: str
    device: str
    processes: int
    compiles: bool
    shape: dict[str, object]

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    def save(self) -> None:
        """Write the settings to their folder."""
        write(self, self.path / SETTINGS)


def load_settings(folder: str | Path) -> Settings:
    """Return the settings that `save` wrote."""
    return read(Settings, Path(folder) / SETTINGS)


def results_file(folder: Path, program: str) -> Path:
    """Return the file in which a program writes its checks, one on each line."""
    return folder / f"{program}.jsonl"


def is_first_process() -> bool:
    """Return whether this process is the one of its program that writes."""
    return os.environ.get("RANK", "0") == "0"

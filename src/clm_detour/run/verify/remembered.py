"""Remember on which machines, and with which versions, the checks were passed, and point to them once."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import torch

from clm_detour.records.store import read, write
from clm_detour.records.verify import Remembered
from clm_detour.utils.environment import VERSION, version_of
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import cache_folder
from clm_detour.utils.progress import console

PACKAGES = ("torch", "triton", "transformers", "mosaicml", "flash-attn", "flash-attn-4")
POINTER = (
    "These GPUs have not been checked with these versions yet: clm-detour doctor --verify tries kernels, "
    "processes, recovery and memory in two minutes (this line is printed once)."
)


def machine_key() -> str:
    """Return the name of this machine with its number of GPUs and the versions that matter.

    GPUs are counted without starting CUDA, which the process that launches others must not do.
    """
    versions = [f"{name} {version_of(name)}" for name in PACKAGES if version_of(name) is not None]
    return ", ".join(
        [f"{platform.node()} with {torch.cuda.device_count()} GPUs", f"clm-detour {VERSION}", *versions]
    )


def file() -> Path:
    """Return the file in the user's cache folder."""
    return cache_folder() / "verified.json"


def load() -> Remembered:
    """Return what is remembered; nothing if the file is missing or cannot be read."""
    try:
        return read(Remembered, file()) if file().exists() else Remembered()
    except (OSError, UserError):
        return Remembered()


def save(remembered: Remembered) -> None:
    """Write what is remembered. A cache that cannot be written only means that nothing is."""
    try:
        write(remembered, file())
    except (OSError, UserError):
        return


def remember_pass() -> None:
    """Remember that this machine passed the checks now."""
    remembered = load()
    remembered.passed[machine_key()] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    save(remembered)


def point_to_verify() -> None:
    """Print once that the GPUs of this machine have not been checked. Without a GPU nothing is printed."""
    if not torch.cuda.device_count():
        return
    remembered, key = load(), machine_key()
    if key in remembered.passed or key in remembered.hinted:
        return
    console.print(POINTER, soft_wrap=True)
    remembered.hinted.append(key)
    save(remembered)

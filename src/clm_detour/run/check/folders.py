"""Check the folders that a run writes to: that they are writable, lose nothing, and have room."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

import torch

from clm_detour.data.cache import is_remote
from clm_detour.plan import RecipePlan
from clm_detour.recipe.export import check_replaceable
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import human_bytes


def check_run_folder(folder: RunFolder, phases: Iterable[str], arms: Iterable[str]) -> None:
    """Check every folder below `run_dir` that training, evaluation, analysis and the page write to.

    Raises:
        UserError: If a folder cannot be written, or holds something else that would be lost.
    """
    models = [folder.model(arm) for arm in arms]
    phase_folders = [folder.phase(id) for id in phases]
    parents = [path.parent for path in (*models, folder.phase("any").root)]
    check_writable(folder.root, *parents, folder.tasks, folder.analysis, folder.report_files)
    check_writable(*(phase.root for phase in phase_folders))
    if folder.report.is_dir():
        raise UserError(f"{folder.report} is a folder, where the page is to be written; remove it.")
    for path in (*models, *(phase.model for phase in phase_folders)):
        check_replaceable(path)


def check_writable(*folders: Path | str | None) -> None:
    """Check that each folder, or the nearest existing one above it, is writable. None and URLs are skipped.

    Raises:
        UserError: If one is not.
    """
    for folder in folders:
        if folder is None or is_remote(str(folder)):
            continue
        existing = nearest_folder(Path(folder))
        try:
            with TemporaryFile(dir=existing):  # permissions would allow root to write in /proc
                pass
        except OSError:
            raise UserError(f"Cannot write below {existing}; choose another folder for {folder}.") from None


def nearest_folder(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())


def room_warnings(plan: RecipePlan, folder: RunFolder, arms: Iterable[str]) -> Iterator[str]:
    """Yield a warning if the disk or the GPU is too small. The size of activations is only an estimate."""
    if plan.sizes is None:
        return
    written = size_of_weights([folder.phase("any").root.parent, *map(folder.model, arms)])
    needed = plan.sizes.disk + plan.sizes.peak_disk - written
    free = shutil.disk_usage(nearest_folder(folder.root)).free
    if needed > free:
        amount = f"{human_bytes(needed)}{' more' if written else ''}"
        yield f"The run takes {amount} below {folder.root}, and {human_bytes(free)} are free there."
    memory = sum(plan.sizes.memory.values())
    if torch.cuda.is_available():
        available = torch.cuda.get_device_properties(0).total_memory
        if memory > available:
            yield (
                f"Training takes about {human_bytes(memory)} on each GPU, which has "
                f"{human_bytes(available)}; "
                "lower train.micro_rows, or set it to auto."
            )


def size_of_weights(folders: Iterable[Path]) -> int:
    """Return the bytes of all safetensors files below the folders."""
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*.safetensors"))

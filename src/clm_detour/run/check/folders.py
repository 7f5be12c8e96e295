"""Check the folders that a run writes to: that they are writable, lose nothing, and have room."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

from clm_detour.data.cache import is_remote
from clm_detour.plan import RecipePlan
from clm_detour.recipe.export import check_replaceable
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.errors import UserError
from clm_detour.utils.gpus import smallest_memory
from clm_detour.utils.progress import human_bytes


def check_run_folder(folder: RunFolder, phases: Iterable[str], arms: Iterable[str]) -> None:
    """Raise UserError if a folder of the run cannot be written, or holds what would be lost."""
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
    """Raise UserError if a folder, or the nearest existing one above it, is not writable, except URLs."""
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
    memory, available = sum(plan.sizes.memory.values()), smallest_memory()
    if available is not None and memory > available:
        takes = f"{human_bytes(memory)} on each GPU, which has {human_bytes(available)}"
        yield {
            "set": f"Training is estimated to take {takes}; lower train.micro_rows, or set it to auto.",
            "recipe": f"Training is estimated to take {takes}; set train.micro_rows.",
            "estimate": (
                f"Training is estimated to take {takes}, with one row in a forward pass; a trial at the "
                "start of each phase will show whether it fits."
            ),
        }[plan.sizes.chosen]


def size_of_weights(folders: Iterable[Path]) -> int:
    """Return the bytes of all safetensors files below the folders."""
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*.safetensors"))

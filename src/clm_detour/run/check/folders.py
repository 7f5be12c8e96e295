"""Where a run writes: folders that can be written and hold nothing that would be lost, room on the disk and in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from clm_detour.config.schema import Config
from clm_detour.data.cache import is_remote
from clm_detour.plan import RecipePlan
from clm_detour.recipe.export import check_replaceable
from clm_detour.recipe.phases import plan_recipe
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import human_bytes


def check_folders(config: Config) -> None:
    """Check every folder that preparing, training, evaluation, analysis and the page write to.

    Raises:
        UserError: one cannot be written, or holds something else that would be lost.
    """
    folder = RunFolder.of(config)
    below = [folder.phase("any").root.parent, folder.tasks, folder.analysis, folder.report_files]
    for path in (folder.root, *below, *(folder.model(arm).parent for arm in config.arms)):
        check_writable(path)
    if folder.report.is_dir():
        raise UserError(f"{folder.report} is a folder, where the page is to be written; remove it.")
    for arm in config.arms:
        check_replaceable(folder.model(arm))
    for phase in map(folder.phase, plan_recipe(config)):
        check_writable(phase.root)
        check_replaceable(phase.model)
    if not is_remote(config.data.dir):
        check_writable(Path(config.data.dir))
    if config.data.cache_dir is not None:
        check_writable(Path(config.data.cache_dir))
    for keys in config.train.loggers.values():
        if log_dir := (keys or {}).get("log_dir"):  # TensorBoard's
            check_writable(Path(log_dir))


def check_writable(folder: Path) -> None:
    """The folder, or the nearest one above it that exists, must be writable.

    Raises:
        UserError: it is not.
    """
    existing = nearest_folder(folder)
    try:
        with TemporaryFile(
            dir=existing
        ):  # an administrator may write anywhere by permission, yet not in /proc
            pass
    except OSError:
        raise UserError(f"Cannot write below {existing}; choose another folder for {folder}.") from None


def nearest_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())


def room_warnings(config: Config, plan: RecipePlan) -> Iterator[str]:
    """What may not have room: a warning, since activations are an estimate."""
    import torch

    if plan.sizes is None:
        return
    there = weights_there(config)
    needed = plan.sizes.disk + plan.sizes.peak_disk - there
    free = shutil.disk_usage(nearest_folder(Path(config.run_dir))).free
    if needed > free:
        amount = f"{human_bytes(needed)}{' more' if there else ''}"
        yield f"The run takes {amount} below {config.run_dir}, and {human_bytes(free)} are free there."
    memory = sum(plan.sizes.memory.values())
    if torch.cuda.is_available():
        there = torch.cuda.get_device_properties(0).total_memory
        if memory > there:
            yield (
                f"Training takes about {human_bytes(memory)} on each GPU, which has {human_bytes(there)}; lower train.micro_rows, or set it to auto."
            )


def weights_there(config: Config) -> int:
    """Return the bytes of weights and moments that the run has written already."""
    folder = RunFolder.of(config)
    roots = [folder.phase("any").root.parent, *map(folder.model, config.arms)]
    return sum(file.stat().st_size for root in roots for file in root.rglob("*.safetensors"))

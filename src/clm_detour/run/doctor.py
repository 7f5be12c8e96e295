"""Describe this installation for `clm-detour doctor`, and warn of what would stop or slow training."""

from __future__ import annotations

import importlib.metadata
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from packaging.requirements import Requirement
from packaging.version import Version
from rich.table import Table

from clm_detour.model.attention import BACKENDS, choose_backend, flash, varlen
from clm_detour.model.compiling import cannot_compile
from clm_detour.model.cpu import softmax
from clm_detour.model.precision import best_device
from clm_detour.utils.environment import describe_environment, version_of
from clm_detour.utils.progress import console, human_bytes, warn

COMPOSER = "mosaicml"
NO_COMPOSER = "not installed (needed to train: pip install 'clm-detour[train]')"
THIRD_OR_FOURTH = (9, 10, 11)  # major compute capabilities of Hopper and Blackwell
MIN_OPEN_FILES = 4096  # each loader process keeps a file open for each shard that it reads
MIN_SHARED_MEMORY = 1 << 30  # loader processes pass batches through it; containers often have 64 MiB
MIN_DISK = 20 << 30


def print_environment() -> None:
    """Print versions, hardware, extras, back ends and limits, then a warning for each problem."""
    table = Table(show_header=False)
    for key, value in describe_environment().items():
        if key == "composer" and value is None:
            value = NO_COMPOSER
        name = key.replace("_gib", ", GiB").replace("_", "-")
        table.add_row(name, ", ".join(value) or "none" if isinstance(value, list) else str(value))
    for key, text in [*extras(), *back_ends(), *limits()]:
        table.add_row(key, text)
    console.print(table)
    if (advice := faster_attention(choose_backend(None).name, best_device().type)) is not None:
        console.print(advice)
    problems = [*unmet_requirements(), *low_limits()]
    for problem in problems:
        warn(problem)
    if not problems:
        console.print("The installed versions meet the requirements, and no limit is too low.", style="green")


def requirements(package: str, extra: str = "") -> list[Requirement]:
    """Return the requirements of an installed package on this machine, those of one extra included."""
    try:
        found = map(Requirement, importlib.metadata.requires(package) or [])
    except importlib.metadata.PackageNotFoundError:
        return []
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": extra})]


def unmet_requirements() -> Iterator[str]:
    """Yield a sentence for each unmet requirement of this package and Composer, as `pip check` does.

    Composer limits torch and others from above. The extra `train-newest` names those that are tested without
    these limits, so its requirements take the place of Composer's where the installed torch is newer.
    """
    extra = "train" if version_of(COMPOSER) else ""
    tested = {each.name for each in [*requirements("clm-detour", "train-newest"), Requirement("torch")]}
    for package in ("clm-detour", COMPOSER):
        for wanted in requirements(package, extra if package == "clm-detour" else ""):
            found = version_of(wanted.name)
            if found is None:
                yield f"{package} requires {wanted.name}, which is not installed; install it."
            elif not wanted.specifier.contains(found, prereleases=True) and not (
                package == COMPOSER and wanted.name in tested and is_newer(found, wanted)
            ):
                yield (
                    f"{package} requires {wanted.name} {wanted.specifier}, but {found} is installed; install "
                    "a version that fits, or see 'Newer releases of torch' in docs/training.md."
                )


def is_newer(found: str, wanted: Requirement) -> bool:
    """Return whether a version is above all that a requirement allows."""
    return all(Version(found) >= Version(each.version) for each in wanted.specifier)


def extras() -> Iterator[tuple[str, str]]:
    """Yield each extra of this package, with the versions of its packages."""
    base = requirements("clm-detour")
    for extra in importlib.metadata.metadata("clm-detour").get_all("Provides-Extra") or []:
        if extra == "flash" and not torch.cuda.is_available():
            continue
        names = [each.name for each in requirements("clm-detour", extra) if each not in base]
        yield (
            f"extra {extra}",
            ", ".join(f"{name} {version_of(name) or 'is not installed'}" for name in names),
        )


def back_ends() -> Iterator[tuple[str, str]]:
    """Yield the attention back end in use, the state of all back ends, the softmax and torch.compile."""
    choice = choose_backend(None)
    yield "attention", f"{choice.name}: {choice.reason}"
    for name, backend in BACKENDS.items():
        if name not in (flash.NAME, varlen.NAME) or torch.cuda.is_available():
            yield f"  {name}", backend.unavailable() or "runs here"
    device = best_device().type
    reason = softmax.unavailable(device)
    slow = "torch's operators one after another, 4 to 10 times slower"
    yield "softmax over the vocabulary", "compiled" if reason is None else f"{slow}: {reason}"
    yield "torch.compile", cannot_compile(device) or "runs here"


def faster_attention(name: str, device: str) -> str | None:
    """Return what a change of the environment would bring to attention on a GPU; None if nothing.

    Args:
        name: The back end in use.
        device: Type of the device.
    """
    if device != "cuda" or name == flash.NAME:
        return None
    if varlen.find() is None:
        return (
            f"Attention uses {name}. torch 2.11 or newer has varlen_attn, FlashAttention over documents, and "
            "compiles a layer with it into one graph: see 'Newer releases of torch' in docs/training.md."
        )
    if torch.cuda.get_device_capability()[0] in THIRD_OR_FOURTH:
        return (
            f"Attention uses {name}. Kernels of FlashAttention 3 or 4 exist for this GPU; clm-detour uses "
            "them once they are installed (github.com/Dao-AILab/flash-attention)."
        )
    return None


def limits() -> Iterator[tuple[str, str]]:
    """Yield disk, shared memory, open files and locked memory."""
    yield "free disk here", human_bytes(shutil.disk_usage(".").free)
    shared = shared_memory()
    yield "free shared memory (/dev/shm)", "none" if shared is None else human_bytes(shared)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield "open files (ulimit -n)", f"{soft} of at most {hard}"
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    unlimited = locked == resource.RLIM_INFINITY
    yield "locked memory (ulimit -l)", "unlimited" if unlimited else human_bytes(locked)


def low_limits() -> Iterator[str]:
    """Yield a sentence for each limit that is too low for training, with its remedy."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < MIN_OPEN_FILES:
        yield (
            f"Fewer than {MIN_OPEN_FILES} files may be open at a time; raise it with ulimit -n "
            f"{MIN_OPEN_FILES}."
        )
    shared = shared_memory()
    if shared is not None and shared < MIN_SHARED_MEMORY:
        yield (
            f"/dev/shm has only {human_bytes(shared)} free, through which batches pass from loader "
            "processes; give a container --shm-size=8g or --ipc=host, or set train.workers=0."
        )
    free = shutil.disk_usage(".").free
    if free < MIN_DISK:
        yield f"Only {human_bytes(free)} of disk are free here; clm-detour plan says how much a recipe takes."


def shared_memory() -> int | None:
    """Return the free bytes of /dev/shm; None if it does not exist."""
    folder = Path("/dev/shm")
    return shutil.disk_usage(folder).free if folder.is_dir() else None

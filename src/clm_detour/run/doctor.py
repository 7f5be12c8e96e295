"""`clm-detour doctor`: what this installation is, and what in it will stand in the way of training."""

from __future__ import annotations

import importlib.metadata
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from rich.table import Table

from clm_detour.utils.environment import describe_environment, version_of
from clm_detour.utils.progress import console, human_bytes, warn

PINNING = ("clm-detour", "mosaicml")  # whose requirements decide the environment
FEWEST_FILES = 4096  # a source has a file open for each shard that it reads, in each loader process
SMALLEST_SHARED = 1 << 30  # batches pass from loader processes through it; containers often have 64 MiB
LEAST_DISK = 20 << 30


def print_environment() -> None:
    """Versions, hardware, extras, back ends, limits; then what is amiss, a sentence each."""
    table = Table(show_header=False)
    for key, value in describe_environment().items():
        name = key.replace("_gib", ", GiB").replace("_", "-")
        table.add_row(name, ", ".join(value) or "none" if isinstance(value, list) else str(value))
    for key, text in [*extras(), *back_ends(), *limits()]:
        table.add_row(key, text)
    console.print(table)
    amiss = [*broken_pins(), *low_limits()]
    for sentence in amiss:
        warn(sentence)
    if not amiss:
        console.print("Versions are those that the pins ask for, and no limit is low.", style="green")


def requirements(package: str) -> list[Requirement]:
    """What an installed package asks for."""
    try:
        return [Requirement(text) for text in importlib.metadata.requires(package) or []]
    except importlib.metadata.PackageNotFoundError:
        return []


def broken_pins() -> Iterator[str]:
    """Each requirement that the installed versions do not meet."""
    for package in PINNING:
        for wanted in requirements(package):
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                continue
            found = version_of(wanted.name)
            if found is None:
                yield f"{package} asks for {wanted.name}, which is not installed; install it."
            elif not wanted.specifier.contains(found, prereleases=True):
                yield (
                    f"{package} asks for {wanted.name} {wanted.specifier}, and {found} is installed; "
                    "install one that fits, or see Other versions in docs/guide.md."
                )


def extras() -> Iterator[tuple[str, str]]:
    """Each extra of this package, and what of it is there."""
    names: dict[str, list[str]] = {}
    for wanted in requirements("clm-detour"):
        extra = re.search(r"extra == ['\"](.+?)['\"]", str(wanted.marker))
        if extra is not None:
            found = version_of(wanted.name)
            names.setdefault(extra[1], []).append(f"{wanted.name} {found or 'is not installed'}")
    for extra_name, packages in names.items():
        yield f"extra {extra_name}", ", ".join(packages)


def back_ends() -> Iterator[tuple[str, str]]:
    """The attention back end that training takes here, and of each whether it runs or why not; what computes the loss; torch.compile."""
    from clm_detour.model.attention import BACKENDS, choose_backend
    from clm_detour.model.compiling import cannot_compile
    from clm_detour.model.cpu import softmax
    from clm_detour.model.precision import best_device

    choice = choose_backend(None)
    yield "attention", f"{choice.name}: {choice.reason}"
    for name, backend in BACKENDS.items():
        yield f"  {name}", backend.unavailable() or "runs here"
    device = best_device().type
    reason = softmax.unavailable(device)
    slow = "torch's operators one after another, 4 to 10 times slower"
    yield "softmax over the vocabulary", "compiled" if reason is None else f"{slow}: {reason}"
    yield "torch.compile", cannot_compile(device) or "runs here"


def limits() -> Iterator[tuple[str, str]]:
    """Disk, shared memory, open files."""
    yield "free disk here", human_bytes(shutil.disk_usage(".").free)
    yield (
        "free shared memory (/dev/shm)",
        "none" if shared_memory() is None else human_bytes(shared_memory() or 0),
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield "open files (ulimit -n)", f"{soft} of at most {hard}"
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    yield (
        "locked memory (ulimit -l)",
        "unlimited" if locked == resource.RLIM_INFINITY else human_bytes(locked),
    )


def low_limits() -> Iterator[str]:
    """Each limit that is lower than training wants."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < FEWEST_FILES:
        yield f"Fewer than {FEWEST_FILES} files may be open at a time; raise it with ulimit -n {FEWEST_FILES}."
    shared = shared_memory()
    if shared is not None and shared < SMALLEST_SHARED:
        yield (
            f"/dev/shm has only {human_bytes(shared)} free, through which batches pass from loader processes; give a container --shm-size=8g "
            "or --ipc=host, or set train.workers=0."
        )
    free = shutil.disk_usage(".").free
    if free < LEAST_DISK:
        yield f"Only {human_bytes(free)} of disk are free here; clm-detour plan says what a recipe takes."


def shared_memory() -> int | None:
    """Free bytes of /dev/shm, or None where there is none."""
    folder = Path("/dev/shm")
    return shutil.disk_usage(folder).free if folder.is_dir() else None

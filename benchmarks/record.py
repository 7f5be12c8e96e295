"""Records of measurements: results/NAME-CPU-DATE.json, with the machine and the versions of packages."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "tokenizers", "numpy")
ResultName = Annotated[str, typer.Option(help="Name of the record in benchmarks/results; empty for none.")]


def record(name: str, results: Any, packages: Sequence[str] = PACKAGES) -> Path:
    """Write results with the machine and versions, and return the path of the file.

    A record of the same name, machine and day is replaced.

    Args:
        name: Name of the benchmark, with which the name of the file starts.
        results: JSON values.
        packages: Packages whose versions matter.
    """
    content = {
        "name": name,
        "date": now().isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": describe_machine(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "results": results,
    }
    path = path_of(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def path_of(name: str) -> Path:
    """Return the file to which `record` writes today's measurement on this machine."""
    device = re.sub(r"[^a-z0-9]+", "-", (gpu_name() or cpu_name()).lower()).strip("-")
    return RESULTS / f"{name}-{device}-{now():%Y-%m-%d}.json"


def now() -> datetime.datetime:
    """Return the time in UTC."""
    return datetime.datetime.now(datetime.UTC)


def describe_machine() -> dict[str, Any]:
    """Return the processor, the number of usable cores, the memory, and the GPU if torch finds one."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": gpu_name(),
    }


def cpu_name() -> str:
    """Return the model of the processor, as Linux names it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu")


def gpu_name() -> str | None:
    """Return the name of the first GPU that torch sees, or None."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Return the commit of the checkout, or None outside a checkout.

    `+dirty` is added if a tracked file outside of results/ differs from the commit.
    """

    here = Path(__file__).parent
    git = ("git", "-C", str(here))
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    status = [*git, "status", "--porcelain", "--untracked-files=no", "--", ":/", f":(exclude){RESULTS.name}"]
    changed = subprocess.run(status, capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+dirty" if changed.stdout.strip() else "")

"""One JSON file a measurement: results/NAME-CPU-DATE.json, with the machine and the versions that gave the numbers."""

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
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


def record(name: str, results: Any, packages: Sequence[str] = PACKAGES) -> Path:
    """Write `results` (JSON values) beside what gave them, over an earlier record of the same machine and day.

    Args:
        name: of the benchmark, e.g. `loader`; becomes the start of the file's name.
        packages: whose versions matter.

    Returns:
        The file.
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
    """Where `record` writes today's measurement of this machine."""
    device = re.sub(r"[^a-z0-9]+", "-", (gpu_name() or cpu_name()).lower()).strip("-")
    return RESULTS / f"{name}-{device}-{now():%Y-%m-%d}.json"


def now() -> datetime.datetime:
    """The time, UTC."""
    return datetime.datetime.now(datetime.UTC)


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, memory and, where torch finds one, the GPU."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": gpu_name(),
    }


def cpu_name() -> str:
    """The processor's model as Linux gives it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu")


def gpu_name() -> str | None:
    """The first GPU that torch sees."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The checkout's commit, with `+dirty` if the tree, results aside, differs from it; None outside a checkout."""
    here = Path(__file__).parent
    git = ("git", "-C", str(here))
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    status = [*git, "status", "--porcelain", "--untracked-files=no", "--", ":/", f":(exclude){RESULTS.name}"]
    changed = subprocess.run(status, capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+dirty" if changed.stdout.strip() else "")

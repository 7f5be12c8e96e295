"""Describe versions and hardware, for the record of a run and for `clm-detour doctor`."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

VERSION = importlib.metadata.version("clm-detour")
PACKAGES = {
    "torch": "torch",
    "transformers": "transformers",
    "composer": "mosaicml",
    "tokenizers": "tokenizers",
}


def describe_environment() -> dict[str, Any]:
    """Return versions, hardware, commit and date as values for JSON."""
    from clm_detour.utils.gpus import visible_gpus

    return {
        "clm_detour": VERSION,
        "python": platform.python_version(),
        **{name: version_of(package) for name, package in PACKAGES.items()},
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [gpu.name for gpu in visible_gpus()],
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def version_of(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )


def commit() -> str | None:
    """Return the commit of the checkout that this code runs from, or None."""
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        result = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None

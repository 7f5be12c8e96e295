"""Describe the GPUs of this machine without opening a CUDA context in this process.

A context takes half a gigabyte of the first GPU. The process that launches the ranks of a phase must not keep
one, and a later fork could not use it. Counting devices needs none; their names and sizes do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

import torch

SECONDS = 120.0  # for a process that imports torch and opens the driver, on a slow file system
QUESTION = """
import json, torch
found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
print(json.dumps([[one.name, one.total_memory] for one in found]))
"""


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Args:
        name: Name that its driver gives it.
        memory: Size of its memory in bytes.
    """

    name: str
    memory: int


@cache
def visible_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that processes started here would use; none if they cannot be read."""
    if not torch.cuda.is_available():
        return ()
    if torch.cuda.is_initialized():
        numbers = range(torch.cuda.device_count())
        found = [torch.cuda.get_device_properties(number) for number in numbers]
        return tuple(Gpu(one.name, one.total_memory) for one in found)
    return ask_another_process()


def ask_another_process() -> tuple[Gpu, ...]:
    """Return the GPUs that a short-lived process sees; none if it fails."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", QUESTION], capture_output=True, text=True, timeout=SECONDS, check=True
        )
        return tuple(Gpu(*one) for one in json.loads(done.stdout.splitlines()[-1]))
    except (subprocess.SubprocessError, OSError, ValueError, IndexError):
        return ()


def smallest_memory() -> int | None:
    """Return the memory of the smallest GPU in bytes; None if there is no GPU."""
    return min((gpu.memory for gpu in visible_gpus()), default=None)

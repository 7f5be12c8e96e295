"""The highest speed of a machine, and the time and memory of a piece of work."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import torch

DENSE_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}  # FLOP/s of the data sheets
SHAPES = ((8192, 768, 2304), (8192, 768, 768), (8192, 1152, 768))  # matrix products of ModernBERT-base


def gemm_peak(device: torch.device, dtypes: Sequence[torch.dtype], rounds: int = 5) -> float:
    """Return the FLOP/s of the fastest of `SHAPES` in the fastest of `dtypes`, as the median of `rounds`."""
    best = 0.0
    for (rows, inner, columns), dtype in itertools.product(SHAPES, dtypes):
        left = torch.randn(rows, inner, device=device, dtype=dtype)
        right = torch.randn(columns, inner, device=device, dtype=dtype)
        seconds = [timed(lambda a=left, b=right: a @ b.T, device) for _ in range(rounds + 1)][1:]
        best = max(best, 2 * rows * inner * columns / statistics.median(seconds))
    return best


def data_sheet_peak(device: torch.device) -> float | None:
    """Return the bf16 FLOP/s of the GPU's data sheet, or None if it is not in `DENSE_BF16`."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((flops for part, flops in DENSE_BF16.items() if part in name), None)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that `work` takes."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def peak_memory(work: Callable[[], object], device: torch.device) -> int:
    """Return the peak of tensor memory during `work`, in bytes, beyond what was allocated before it."""

    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as run:
        work()
    events = [event for event in run.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Check 6: what this machine reaches, and how it is set.

Speeds have no limit but one: a product that reaches less than half of the stated peak of the GPU means that
the GPU is throttled or shared. What a step reaches comes from `memory.check_step`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.precision import best_device, computed_precision
from clm_detour.records.verify import Check
from clm_detour.run.verify.checks import Group
from clm_detour.run.verify.settings import Settings
from clm_detour.run.verify.small_recipe import ARM, PHASE, recipe_of
from clm_detour.train.callbacks.throughput import peak_flops
from clm_detour.train.phase import train_phase
from clm_detour.utils.environment import usable_cores

ROUNDS = 10
SIDE = {"cuda": 8192, "cpu": 512}  # of the matrices of the product
COPIED = {"cuda": 1 << 30, "cpu": 1 << 26}  # bytes
REDUCED = {"cuda": 1 << 28, "cpu": 1 << 24}  # bytes; about the gradients of base
LEAST_SHARE = 0.5  # of the stated peak
LEAST_CORES = {"cuda": 2, "cpu": 1}  # a process and its loader

figures = Group("figures")


def check_speed(settings: Settings) -> Iterator[Check]:
    """Measure the machine. Every process must call it; all measure at the same time."""
    device = best_device()
    precision, _ = computed_precision("bf16", device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = SIDE[device.type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    speed = 2 * side**3 / median_seconds(lambda: left @ right, device)
    peak = peak_flops("bf16") if device.type == "cuda" else None
    yield figures.figure(f"product in {precision}", f"{speed / 1e12:.3g} TFLOP/s", speed)
    if peak is not None:
        yield figures.at_least("product, share of the stated peak", speed / peak, LEAST_SHARE)
    copied = copy_speed(device)
    yield figures.figure("copy, read and written", f"{copied / 1e9:.3g} GB/s", copied)
    yield from check_all_reduce(settings, device)
    cores = usable_cores() // settings.processes
    yield figures.at_least("cores for each process", cores, LEAST_CORES[device.type])
    yield check_tf32(settings)


def copy_speed(device: torch.device) -> float:
    """Return the bytes per second that a copy reads and writes."""
    source = torch.empty(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_seconds(lambda: target.copy_(source), device)


def check_all_reduce(settings: Settings, device: torch.device) -> Iterator[Check]:
    """Measure the bandwidth of a sum over the processes: what each sends and receives."""
    if settings.processes == 1:
        yield figures.left_out("all-reduce", "there is one process")
        return
    numbers = torch.zeros(REDUCED[device.type] // 4, device=device)
    seconds = median_seconds(lambda: dist.all_reduce(numbers), device)
    moved = 2 * (settings.processes - 1) / settings.processes * numbers.nbytes / seconds
    yield figures.figure("all-reduce, each way", f"{moved / 1e9:.3g} GB/s", moved)


def check_tf32(settings: Settings) -> Check:
    """Return the check that products are exact inside the steps of a phase in fp32."""
    states: list[bool] = []

    def note(module: torch.nn.Module, arguments: Any) -> None:
        if isinstance(module, ModernBertForPretraining) and module.training:
            states.append(torch.backends.cuda.matmul.allow_tf32)

    recipe = recipe_of(
        settings, "fp32", "train.precision=fp32", "train.compile=false", "train.ema_half_life=null",
        "train.evaluate_every=null", f"phases.{PHASE}.duration=1tok",
    )  # fmt: skip
    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        train_phase(recipe, recipe.phase(ARM, PHASE))
    finally:
        hook.remove()
    name = "TF32 in a step in fp32"
    if not states:
        return figures.failed(name, "no step was seen")
    return figures.equal(name, "on" if any(states) else "off", "off", "fp32 is computed with 10 bits")


def median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the median of several times that `work` takes, after one that does not count."""
    seconds = []
    for _ in range(ROUNDS + 1):
        start = now(device)
        work()
        seconds.append(now(device) - start)
    return statistics.median(seconds[1:])


def now(device: torch.device) -> float:
    """Return the time after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()

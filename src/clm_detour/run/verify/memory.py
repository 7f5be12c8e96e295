"""Check 5: memory that runs out on one process or on all, and one step at the shape of the user's recipe.

Errors are planted in forward and in backward of micro-batches over a size. All processes must then find the
largest size that does not fail; a process that waits for another is ended by the deadline of the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from clm_detour.plan.memory import memory_of
from clm_detour.records.verify import Check
from clm_detour.run.verify.checks import Group
from clm_detour.run.verify.settings import Settings
from clm_detour.run.verify.small_recipe import ARM, PHASE, recipe_of, shaped_recipe
from clm_detour.train.bench import Measured, bench_phase
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.micro_rows import choose_micro_rows, find_micro_rows
from clm_detour.train.phase import make_network
from clm_detour.train.setup import Setup
from clm_detour.utils.progress import human, human_bytes

SIZES, FITTING = [4, 2, 1], 2  # rows; those above FITTING run out of memory

memory = Group("memory")
figures = Group("figures")


def check_memory(settings: Settings) -> Iterator[Check]:
    """Plant errors for lack of memory, and run a step. Every process must call it."""
    recipe = recipe_of(settings, "memory", "train.micro_rows=auto")
    setup = Setup(recipe, recipe.phase(ARM, PHASE))
    for place in ("forward", "backward"):
        for who in ("one process", "all processes"):
            if who == "one process" and settings.processes == 1:
                continue
            yield check_search(setup, place, who)
    yield from check_step(settings)


def check_search(setup: Setup, place: str, who: str) -> Check:
    """Return the check that all processes find the same size, which is the largest that fits."""
    model = make_model(setup)
    several = dist.is_initialized()
    last = dist.get_world_size() - 1 if several else 0
    hit = who == "all processes" or not several or dist.get_rank() == last
    with failing(model, place if hit else None):
        size = find_micro_rows(setup, model, SIZES)
    sizes = [size]
    if several:
        sizes = [0] * dist.get_world_size()
        dist.all_gather_object(sizes, size)
    return memory.equal(
        f"no memory in {place}, {who}",
        ", ".join(map(str, sorted(set(sizes)))) + " rows",
        f"{FITTING} rows",
        "the processes do not agree on the largest micro-batch that fits",
    )


def make_model(setup: Setup) -> PretrainingModel:
    """Return the network of a phase before it is sharded."""
    bf16 = setup.config.train.precision == "bf16"
    return PretrainingModel(make_network(setup), setup.run.objective, bf16=bf16)


@contextmanager
def failing(model: PretrainingModel, place: str | None) -> Iterator[None]:
    """Let forward or backward of more than `FITTING` rows raise torch's error for lack of memory."""

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory, planted by clm-detour doctor --verify")

    def before(module: torch.nn.Module, arguments: Any) -> None:
        if place == "forward" and len(arguments[0]) > FITTING:
            fail()

    def after(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        if place == "backward" and len(arguments[0]) > FITTING:
            output.loss.register_hook(fail)

    hooks = [
        model.network.register_forward_pre_hook(before),
        model.network.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_step(settings: Settings) -> Iterator[Check]:
    """Run steps at the shape of the user's recipe, and yield their size, speed and memory."""
    recipe = shaped_recipe(settings)
    setup = Setup(recipe, recipe.phase(ARM, PHASE))
    chosen = choose_micro_rows(setup, make_model(setup))
    measured = next(iter(bench_phase(recipe, setup.run, 1, [chosen.rows])))
    name = "a step at the recipe's shape" if settings.shape else "a step of a small network"
    if measured.seconds is None:
        yield memory.failed(name, f"micro-batches of {chosen.rows} rows were chosen, and do not fit")
        return
    text = f"{chosen.rows} x {setup.run.row_tokens:,}"
    yield memory.figure(f"{name}: rows", text, chosen.rows)
    yield from speed_of(measured, setup, settings)


def speed_of(measured: Measured, setup: Setup, settings: Settings) -> Iterator[Check]:
    """Yield speed, MFU and memory of a step; what a CPU does not know is left out."""
    assert measured.tokens_per_second is not None
    speed = measured.tokens_per_second
    yield figures.figure("tokens per second of a step", human(speed), speed)
    if measured.mfu is None:
        why = "a CPU has no stated peak" if settings.device == "cpu" else "the peak of this GPU is not known"
        yield figures.left_out("MFU of a step", why)
    else:
        yield figures.figure("MFU of a step", f"{measured.mfu:.1%}", measured.mfu)
    if measured.memory is None:
        yield figures.left_out("memory beside the plan", "only a GPU counts its memory")
        return
    run, config = setup.run, setup.config
    train = config.train
    network = make_network(setup)
    tokens = measured.rows * run.row_tokens
    parts = memory_of(train, run.phase, tokens, network, settings.processes)
    text = f"{human_bytes(measured.memory)}, plan {human_bytes(sum(parts.values()))}"
    yield figures.figure("memory beside the plan", text, measured.memory)

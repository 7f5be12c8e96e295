"""Check 3: collectives, and a phase of training on several processes, under DDP and under FSDP2.

The same phase has been trained by one process before (`train_alone`). It has three micro-batches a step, a
clipped gradient, a moving average of the weights, and held-out scores.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist

from clm_detour.model.precision import best_device, computed_precision
from clm_detour.records.phase import LoggedStep
from clm_detour.records.store import read_lines
from clm_detour.records.verify import Check
from clm_detour.run.verify.checks import Group
from clm_detour.run.verify.compare import compare, distance
from clm_detour.run.verify.settings import Settings, is_first_process
from clm_detour.run.verify.small_recipe import (
    ARM,
    PHASE,
    folder_of,
    recipe_of,
    shaped_recipe,
    write_recipe,
)
from clm_detour.train.parallel import start_processes
from clm_detour.train.phase import train_phase

NUMBERS = 1000  # of each collective
WAYS = {"DDP": "ddp", "FSDP2": "fsdp"}

ranks = Group("ranks")


def train_alone(settings: Settings) -> Iterator[Check]:
    """Prepare the rows, and train the phase in this process."""
    from clm_detour.run.pipeline import prepare_data  # takes seconds, and no other program needs it

    write_recipe(settings)
    recipe = recipe_of(settings, "alone")
    prepare_data(recipe)
    if settings.shape:
        prepare_data(shaped_recipe(settings))
    train_phase(recipe, recipe.phase(ARM, PHASE))
    losses = [line.loss for line in read_lines(LoggedStep, folder_of(settings, "alone").metrics)]
    yield ranks.at_most(f"alone: loss after {len(losses)} steps", losses[-1], losses[0], "nats")


def check_ranks(settings: Settings) -> Iterator[Check]:
    """Check the collectives, and train under DDP and FSDP2. Every process must call it."""
    start_processes()
    if settings.processes == 1:
        yield ranks.left_out("several processes", "there is one GPU")
        recipe = recipe_of(settings, "ddp")  # the run that recovery is compared with
        train_phase(recipe, recipe.phase(ARM, PHASE))
        return
    yield from check_collectives(settings.processes)
    precision, _ = computed_precision("bf16", best_device())
    for label, parallel in WAYS.items():
        recipe = recipe_of(settings, parallel, f"train.parallel={parallel}")
        train_phase(recipe, recipe.phase(ARM, PHASE))
        if is_first_process():
            found, alone = folder_of(settings, parallel), folder_of(settings, "alone")
            yield from compare(ranks, label, found, alone, precision)


def check_repeated(settings: Settings) -> Iterator[Check]:
    """Train twice under `train.deterministic`: the weights must be equal to the bit. Every process must call
    it, in a program of its own, because the setting must be known before a GPU is started.
    """
    names = ("first", "second")
    for name in names:
        recipe = recipe_of(settings, name, "train.deterministic=true")
        train_phase(recipe, recipe.phase(ARM, PHASE))
    if is_first_process():
        files = [folder_of(settings, name).model / "model.safetensors" for name in names]
        tensor, away = distance(*files)
        yield ranks.at_most("deterministic: weights of two runs", away, 0.0, where=tensor)


def check_collectives(processes: int) -> Iterator[Check]:
    """Check sums, broadcasts, gathering and scattering against what they must give."""
    rank, device = dist.get_rank(), best_device()
    numbers = torch.arange(NUMBERS, dtype=torch.float32, device=device)
    total = processes * (processes - 1) // 2
    summed = numbers + rank
    dist.all_reduce(summed)
    yield wrong("all_reduce", summed, numbers * processes + total)
    sent = numbers + rank
    dist.broadcast(sent, src=processes - 1)
    yield wrong("broadcast", sent, numbers + processes - 1)
    gathered = torch.empty(processes * NUMBERS, device=device)
    dist.all_gather_into_tensor(gathered, numbers + rank)
    expected = torch.cat([numbers + other for other in range(processes)])
    yield wrong("all_gather", gathered, expected)
    share = torch.empty(NUMBERS, device=device)
    dist.reduce_scatter_tensor(share, (numbers + rank).repeat(processes))
    yield wrong("reduce_scatter", share, numbers * processes + total)


def wrong(name: str, found: torch.Tensor, expected: torch.Tensor) -> Check:
    """Return the check of a collective: how many numbers are wrong on any process."""
    number = (found != expected).sum().to(torch.float32)
    dist.all_reduce(number)
    return ranks.at_most(f"{name}: wrong numbers", int(number.item()), 0)

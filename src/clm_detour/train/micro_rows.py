"""Choose the rows of a micro-batch: a number, or for `train.micro_rows: auto` the most that fit on a GPU.

On a CPU, and with `train.deterministic`, `auto` follows from the recipe alone (`plan.memory.rows_by_recipe`).
Elsewhere it is found by trial before the network is sharded or wrapped in DDP, where a process that runs out
of memory would leave the others waiting for it. Each process runs forward and backward of the worst rows of
the phase on the bare network: all of its rows at first, then fewer, always a divisor of their number, so that
no micro-batch is shorter than the others. Gradients are present, and an empty tensor takes the place of what
a step holds besides: optimizer state, buckets, moving average. After each trial the processes agree whether
it fitted on all of them. The search changes neither weights nor random state.
"""

from __future__ import annotations

import gc
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from composer.utils import dist, get_device

from clm_detour.data.loader import Batch, cut_every
from clm_detour.data.objectives import Objective
from clm_detour.model.attention import choose_backend
from clm_detour.model.precision import best_device
from clm_detour.plan.memory import activations, divisors, fixed_memory, rows_by_recipe
from clm_detour.records.phase import MicroRowsRecord
from clm_detour.records.store import read, write
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.out_of_memory import is_out_of_memory, memory_can_run_out, remedies
from clm_detour.train.parallel import broadcast, is_main_process, is_true_on_any_process
from clm_detour.train.setup import Setup
from clm_detour.utils.environment import VERSION
from clm_detour.utils.errors import UserError

RESERVE = 1 << 30  # bytes for NCCL, the batches and gaps between allocations
HOPELESS = 2.0  # sizes that are estimated to take more than this multiple of the memory are not tried


@dataclass(frozen=True)
class MicroRows:
    """The rows of a micro-batch, and the reason."""

    rows: int
    reason: str

    @property
    def line(self) -> str:
        """The line that says how many rows a micro-batch has, and why."""
        return f"micro-batches of {self.rows} row{'s' * (self.rows > 1)} ({self.reason})"


def choose_micro_rows(setup: Setup, model: PretrainingModel) -> MicroRows:
    """Return the rows that each process puts through the network at once. Every process must call it.

    Args:
        model: The network with all its weights, compiled and checkpointed as for training, not sharded.

    Raises:
        UserError: If not even one row fits on one of the processes.
    """
    train, rows = setup.config.train, setup.rows
    if isinstance(train.micro_rows, int):
        return MicroRows(min(train.micro_rows, rows), "asked for")
    if train.micro_rows is None:
        return MicroRows(rows, "all rows of a process")
    if not searches(setup):
        run, config = setup.run, model.network.config
        size = rows_by_recipe(train, run.phase, config, run.row_tokens, rows)
        return MicroRows(size, "follows from the recipe")
    wanted = describe(setup)
    kept = broadcast(kept_rows(setup, wanted) if is_main_process() else None)
    if kept is not None:
        return MicroRows(kept, "found by trial when this phase was started")
    size = find_micro_rows(setup, model, worth_a_trial(setup, model, wanted))
    if is_main_process():
        setup.folder.root.mkdir(parents=True, exist_ok=True)
        write(replace(wanted, rows=size), setup.folder.micro_rows)
    return MicroRows(size, "found by trial")


def searches(setup: Setup) -> bool:
    """Return whether `auto` is found by trial."""
    return memory_can_run_out() and not setup.config.train.deterministic


def find_micro_rows(setup: Setup, model: PretrainingModel, sizes: list[int]) -> int:
    """Return the first of these sizes with which every process has enough memory.

    Args:
        sizes: Rows of a micro-batch, the largest first.

    Raises:
        UserError: If none fits.
    """
    for size in sizes:
        if fits_everywhere(setup, model, size):
            return size
    raise UserError(
        f"The memory of a GPU does not hold a step with one row of {setup.run.row_tokens:,} tokens; "
        f"{remedies(setup)}."
    )


def fits_everywhere(setup: Setup, model: PretrainingModel, size: int) -> bool:
    """Return whether every process has enough memory for micro-batches of `size` rows.

    Every process must call it. Nothing is left of the trial.
    """
    get_device(None).module_to_device(model)
    before, random_devices = model.training, [best_device()] if best_device().type == "cuda" else []
    with torch.random.fork_rng(random_devices):
        fits = attempt(setup, model.train(), size)
    model.train(before)
    for parameter in model.parameters():
        parameter.grad = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return not is_true_on_any_process(not fits)


def attempt(setup: Setup, model: PretrainingModel, size: int) -> bool:
    """Return whether forward and backward of a micro-batch fit, beside all that a step holds."""
    try:
        ballast = torch.empty(ballast_bytes(setup, model), dtype=torch.uint8, device=best_device())
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        longest = model.network.architecture.longest
        batch = worst_batch(size, setup.run.row_tokens, setup.run.objective, longest)
        model.loss(model(batch), batch).backward()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        del ballast
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def ballast_bytes(setup: Setup, model: PretrainingModel) -> int:
    """Return the bytes that a step of training holds on each process and a trial does not.

    A trial has all weights and their gradients. Where training shards them, a step may gather whole gradients
    in addition to the shares that the plan counts, so only the weights are subtracted.
    """
    train, world = setup.config.train, dist.get_world_size()
    parts = fixed_memory(train, setup.run.phase, model.network, world)
    sharded = train.parallel != "ddp" and world > 1
    parameters = list(model.parameters())
    held = sum(each.nbytes * (1 if sharded or not each.requires_grad else 2) for each in parameters)
    return RESERVE + max(sum(parts.values()) - parts.get("bf16 copies", 0) - held, 0)


def worst_batch(rows: int, row_tokens: int, objective: Objective, longest: int | None) -> Batch:
    """Return rows of the longest documents, with all labels that an objective may expect of them."""
    predicted = row_tokens if objective.causal else math.ceil((objective.mask_rate or 1) * row_tokens)
    ids = torch.zeros(rows, row_tokens, dtype=torch.int64)
    labels = torch.full_like(ids, -100)
    labels[:, :predicted] = 0
    return {
        "input_ids": ids.to(best_device()),
        "labels": labels.to(best_device()),
        "document_lengths": [cut_every(row_tokens, longest)] * rows,
        "predicted": [predicted] * rows,
    }


def worth_a_trial(setup: Setup, model: PretrainingModel, found: MicroRowsRecord) -> list[int]:
    """Return the divisors of a process's rows without those that cannot fit, since each is compiled anew."""
    train, run = setup.config.train, setup.run
    most = HOPELESS * min((memory for _, memory in found.gpus if memory), default=math.inf)
    config = model.network.config
    sizes = divisors(setup.rows)
    kept = [size for size in sizes if activations(train, run.phase, config, size * run.row_tokens) <= most]
    return kept or [1]


def describe(setup: Setup) -> MicroRowsRecord:
    """Return a record without the number of rows. Every process must call it."""
    train, run, device = setup.config.train, setup.run, best_device()
    dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
    gpu = ("cpu", 0)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu = (properties.name, properties.total_memory)
    settings: dict[str, Any] = {
        "rows of a process": setup.rows,
        "row_tokens": run.row_tokens,
        "objective": run.phase.objective,
        "mask_rate": run.phase.mask_rate,
        "freeze": None if run.phase.freeze is None else asdict(run.phase.freeze),
        "precision": train.precision,
        "residual": train.residual,
        "compile": setup.compiles,
        "activation_checkpointing": train.activation_checkpointing,
        "parallel": train.parallel,
        "average": train.ema_half_life is not None,
        "attention": choose_backend(setup.config.model.attention, device.type, dtype).name,
    }
    return MicroRowsRecord(
        rows=0,
        gpus=dist.all_gather_object(gpu),
        versions={"torch": str(torch.__version__), "clm_detour": VERSION},
        settings=settings,
    )


def kept_rows(setup: Setup, wanted: MicroRowsRecord) -> int | None:
    """Return the rows that an earlier start of this phase found under the same conditions, or None."""
    if not setup.folder.micro_rows.exists():
        return None
    try:
        found = read(MicroRowsRecord, setup.folder.micro_rows)
    except UserError:  # broken, or of another version
        return None
    return found.rows if replace(found, rows=0) == wanted else None

"""The roofline of a step: the time of each kernel at the peaks of a GPU, and the MFU that follows.

The time of a kernel is that of its operations at the peak for bf16 or that of its bytes at the bandwidth of
the memory, whichever is longer. It is arithmetic on `plan.kernels` and the figures of the maker, and not a
measurement: `clm-detour bench` measures.

Kernels do not reach the peaks. The expected MFU assumes the shares in `REACHED`, which are usual on an H100:
cuBLAS reaches about 70 % in bf16, FlashAttention-3 with heads of 64 about half in the forward and 0.4 in the
backward pass (arXiv 2407.08608, figures 5 and 6), and copies about 90 % of the bandwidth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from clm_detour.config.schema import Train
from clm_detour.data.loader import RowStream
from clm_detour.model.attention import varlen
from clm_detour.plan.hardware import DEVICES
from clm_detour.plan.kernels import FULL, HALF, Kernel, MicroBatch, kernels
from clm_detour.plan.make import model_config
from clm_detour.plan.operations import assumed_row, first_rows, frozen_parts
from clm_detour.plan.show import new_table
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import console, human
from clm_detour.utils.rules import one_of

REACHED = {"product": 0.7, "attention": 0.45, "memory": 0.9}  # assumed shares of the peaks
TOKENS = 98_304  # of a micro-batch whose size the recipe leaves open


@dataclass(frozen=True)
class Row:
    """An operation with all its kernels, in seconds at the peaks."""

    name: str
    bytes: float
    flops: float
    forward: float
    backward: float

    @property
    def seconds(self) -> float:
        """Return the time of both passes."""
        return self.forward + self.backward


@dataclass(frozen=True)
class Roofline:
    """The roofline of a micro-batch of a phase.

    Args:
        rows: The operations, in the order in which they first run.
        mfu: Counted operations over what the peak computes in the time of all rows.
        expected_mfu: The same if kernels reach `REACHED`.
    """

    rows: list[Row]
    mfu: float
    expected_mfu: float

    @property
    def seconds(self) -> float:
        """Return the time of all rows at the peaks."""
        return sum(row.seconds for row in self.rows)


def roofline(found: Iterable[Kernel], device: str) -> Roofline:
    """Return the roofline of kernels on a GPU.

    Raises:
        UserError: If the GPU is not known.
    """
    one_of(device, DEVICES, "--device")
    peak, bandwidth = DEVICES[device].bf16, DEVICES[device].bandwidth
    found = list(found)
    grouped: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in found:
        grouped[kernel.row].append(kernel)
    rows = [
        Row(
            name,
            sum(kernel.bytes for kernel in of_row),
            sum(kernel.flops for kernel in of_row),
            *(
                sum(seconds(kernel, peak, bandwidth) for kernel in of_row if kernel.backward is backward)
                for backward in (False, True)
            ),
        )
        for name, of_row in grouped.items()
    ]
    flops = sum(row.flops for row in rows)
    slower = sum(
        seconds(kernel, peak * REACHED[kernel.limit], bandwidth * REACHED["memory"]) for kernel in found
    )
    return Roofline(rows, flops / peak / sum(row.seconds for row in rows), flops / peak / slower)


def seconds(kernel: Kernel, peak: float, bandwidth: float) -> float:
    """Return the time of a kernel at a number of operations and of bytes per second."""
    return max(kernel.computed / peak, kernel.bytes / bandwidth)


def micro_batch(
    run: PhaseRun, model: Any, train: Train, gpus: int, stream: RowStream | None, clips: bool
) -> MicroBatch:
    """Return a micro-batch of a phase.

    Args:
        stream: Rows of the phase, of which the first ones are taken. None: they are assumed.
        clips: Whether gradients are clipped.
    """
    of_gpu = max(run.step_rows.full // gpus, 1)
    rows = rows_at_once(train, of_gpu, run.row_tokens)
    if stream is not None:
        lengths, predicted = first_rows(run, stream, rows)
    else:
        lengths, predicted = assumed_row(run, model)
        lengths, predicted = lengths * rows, predicted * rows
    return MicroBatch(
        lengths,
        predicted,
        run.objective.causal,
        per_step=-(-of_gpu // rows),
        fused=varlen.find() is not None,
        stream=HALF if train.residual == "bf16" else FULL,
        checkpointing=train.activation_checkpointing,
        clips=clips,
    )


def rows_at_once(train: Train, of_gpu: int, row_tokens: int) -> int:
    """Return the rows of a micro-batch: as the recipe says, else as many as have about TOKENS tokens."""
    if isinstance(train.micro_rows, int):
        return min(train.micro_rows, of_gpu)
    return min(max(TOKENS // row_tokens, 1), of_gpu)


def print_roofline(recipe: Recipe, device: str, gpus: int = 1) -> None:
    """Print the roofline of each phase, once for phases with equal micro-batches.

    Raises:
        UserError: If the GPU is not known, the recipe does not compute in bf16, or the config of its model is
            not known yet.
    """
    one_of(device, DEVICES, "--device")
    train = recipe.config.train
    if train.precision != "bf16":
        raise UserError("--roofline: it counts bytes and peaks of bf16; set train.precision=bf16.")
    needed = recipe.config.model.base is None and recipe.has_tokenizer
    tokenizer = recipe.tokenizer if needed else None
    model = model_config(recipe.config.model, recipe.config.tokenizer.train, tokenizer)
    if model is None:
        raise UserError("--roofline: the size of the vocabulary is not known; run clm-detour prepare first.")
    shown: list[tuple[MicroBatch, object]] = []
    for run in recipe.phases.values():
        sources = recipe.config.data.mixtures[run.phase.mixture]
        complete = recipe.has_tokenizer and all(map(recipe.prepared.has_rows, sources))
        stream = recipe.stream(run) if complete else None
        batch = micro_batch(run, model, train, gpus, stream, recipe.config.optimizer.clip_norm is not None)
        if (batch, run.phase.freeze) in shown:
            continue
        shown.append((batch, run.phase.freeze))
        print_phase(run, model, batch, device)
    console.print(
        "This is arithmetic from shapes and the maker's figures, not a measurement: bf16, compiled layers, "
        "FlashAttention-3, communication left out. clm-detour bench measures.",
        soft_wrap=True,
    )


def print_phase(run: PhaseRun, model: Any, batch: MicroBatch, device: str) -> None:
    """Print the roofline of one phase."""
    found = roofline(kernels(model, batch, frozen_parts(run.phase.freeze, model)), device)
    rate = run.phase.mask_rate
    objective = run.phase.objective + (f" {rate:.0%}" if rate else "")
    console.print(
        f"{run.id} ({objective}): a micro-batch of {human(batch.tokens)} tokens in {len(batch.lengths):,} "
        f"documents, {human(batch.predicted)} predicted",
        soft_wrap=True,
    )
    console.print(table_of(found))
    reached = ", ".join(f"{name} {share:.0%}" for name, share in REACHED.items())
    console.print(
        f"MFU at the peaks {found.mfu:.0%}; expected {found.expected_mfu:.0%}, assuming that kernels reach "
        f"these shares of the peaks: {reached}.\n",
        soft_wrap=True,
    )


def table_of(found: Roofline) -> Table:
    """Return a table with a line for each operation."""
    table = new_table("operation", "GB", "TFLOPs", "ms forward", "ms backward", "share")
    for row in found.rows:
        table.add_row(*cells(row, found.seconds))
    total = found.rows
    everything = Row(
        "total",
        sum(row.bytes for row in total),
        sum(row.flops for row in total),
        sum(row.forward for row in total),
        sum(row.backward for row in total),
    )
    table.add_row(*cells(everything, found.seconds))
    return table


def cells(row: Row, whole: float) -> list[str]:
    """Return the cells of an operation, which has its share of `whole` seconds."""
    return [
        row.name,
        f"{row.bytes / 1e9:,.1f}",
        f"{row.flops / 1e12:,.2f}" if row.flops else "",
        f"{row.forward * 1e3:,.2f}",
        f"{row.backward * 1e3:,.2f}",
        f"{row.seconds / whole:.1%}",
    ]

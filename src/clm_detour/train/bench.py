"""`clm-detour bench`: measure speed and memory of real training steps at several micro-batch sizes.

Batches, network, optimizer, Trainer and the norm and clipping of gradients are those of training. Metrics,
moving average, held-out losses and checkpoints are left out, and the learning rate stays at its peak. The
first steps of each size warm up kernels and compiler and are not counted. On several GPUs the launcher runs
this module: CONFIG arm=ARM phase=PHASE steps=N [sizes=4,8].

Before a size is measured on a GPU, the processes try it as `micro_rows: auto` does and agree whether it fits.
If memory runs out nevertheless, and there are several processes, the others would wait for the one that
failed, so the measurement ends with an error; sizes that fit have been printed before that.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from clm_detour.config import load_config, parse_selection
from clm_detour.data.batch_size import StepRows
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.train.callbacks.checkpoint import Checkpoints
from clm_detour.train.callbacks.gradient_sync import gradient_sync
from clm_detour.train.callbacks.gradients import Gradients
from clm_detour.train.callbacks.throughput import peak_flops
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.deterministic import prepare_environment
from clm_detour.train.main import delay_errors
from clm_detour.train.micro_rows import fits_everywhere
from clm_detour.train.numerics import numerics
from clm_detour.train.optim import make_optimizer
from clm_detour.train.out_of_memory import is_out_of_memory, memory_can_run_out
from clm_detour.train.parallel import is_main_process, start_processes
from clm_detour.train.phase import close, distribute, make_batches, make_network, make_trainer
from clm_detour.train.setup import Setup, compile_line, computation_lines, describe_processes
from clm_detour.utils.allocator import let_gpu_memory_grow
from clm_detour.utils.errors import UserError, exit_on_user_error
from clm_detour.utils.progress import console, human, human_bytes

WARMUP = 2  # steps; the first creates the optimizer state, so the second is the first with full memory
HEADER = ("micro_rows", "s per step", "tokens/s", "MFU", "memory")


@dataclass(frozen=True)
class Measured:
    """The measurement of one micro-batch size. All values but `rows` are None if it did not fit.

    Args:
        rows: Rows in one forward pass of one process.
        seconds: Seconds per step.
        tokens_per_second: Speed over all processes, padding included.
        mfu: Share of the device's peak; also None if the peak is not known.
        memory: Peak memory of this process in bytes; also None on a CPU.
    """

    rows: int
    seconds: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    memory: int | None = None


class StepTimer(Callback):
    """Measures seconds and operations of the steps after the warm-up."""

    def __init__(self, model: PretrainingModel):
        self.model = model
        self.start = self.seconds = 0.0
        self.flops = 0

    def batch_start(self, state: State, logger: Logger) -> None:
        """Start the clock after the warm-up, and count operations from there on."""
        if state.timestamp.batch.value == WARMUP:
            self.start = now()
        if state.timestamp.batch.value >= WARMUP:
            self.flops += self.model.flops_per_batch(state.batch)

    def fit_end(self, state: State, logger: Logger) -> None:
        """Stop the clock."""
        self.seconds = now() - self.start


class NoCheckpoints(Checkpoints):
    """Stands in for the checkpoints that `Gradients` writes before it stops: a measurement writes nothing."""

    def write(self, state: State) -> Path:
        """Raise the error that ends the measurement."""
        raise UserError(
            "The loss was not finite in too many steps in a row; lower the peak of the phase's schedule."
        )


def now() -> float:
    """Return the time after the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def bench_phase(recipe: Recipe, run: PhaseRun, steps: int, sizes: Sequence[int] = ()) -> Iterator[Measured]:
    """Measure each size in ascending order, up to the first that does not fit. Every process must call it.

    Args:
        steps: Number of steps to measure.
        sizes: Rows in one forward pass of one process; the default is powers of two up to all rows of a step.

    Yields:
        Each measurement when it is done.

    Raises:
        UserError: If the rows do not divide over the processes, the data is not prepared, the loss is not
            finite, or one process ran out of memory and could not tell the others.
    """
    config = recipe.config
    recipe.check_world_size(dist.get_world_size())
    let_gpu_memory_grow()
    start_processes()
    rows = config.train.batch_rows // dist.get_world_size()
    tokens = (WARMUP + steps) * run.batch_tokens
    run = replace(run, parent=None, duration=tokens, step_rows=StepRows.constant(config.train.batch_rows))
    for size in sorted(sizes) or [2**power for power in range(rows.bit_length())]:
        size = min(size, rows)
        train = replace(config.train, micro_rows=size, loggers={})
        with numerics(train):
            measured = measure(Setup(Recipe(replace(config, train=train)), run), size, steps)
        yield measured
        if measured.seconds is None:
            break


def measure(setup: Setup, size: int, steps: int) -> Measured:
    """Measure one size."""
    run, config = setup.run, setup.config
    train = config.train
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        network = make_network(setup)
        model = PretrainingModel(network, setup.stream.objective, bf16=train.precision == "bf16")
        if memory_can_run_out() and not fits_everywhere(setup, model, size):
            return Measured(size)
        distribute(setup, network)
        timer = StepTimer(model)
        optimizer = make_optimizer(network, config.optimizer, run.phase.schedule.peak)
        batches = make_batches(setup)
        checkpoints = NoCheckpoints(setup.folder.checkpoints, network, average=None, every_tokens=1, keep=1)
        gradients = Gradients(config.optimizer.clip_norm, "skip", None, batches, checkpoints)
        sync = gradient_sync(network, setup.precision == "bf16")
        callbacks = [each for each in (sync, gradients, timer) if each is not None]
        trainer = make_trainer(setup, model, optimizer, batches, callbacks, size)
        try:
            trainer.fit()
        finally:
            close(trainer)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if dist.get_world_size() > 1:  # the launcher ends the others, which wait for this process
            raise UserError(
                f"One of the processes ran out of memory with {size} rows in a forward pass and could not "
                "tell the others, so the measurement ends here; ask for smaller sizes with --micro-rows."
            ) from None
        return Measured(size)
    seconds, peak = timer.seconds / steps, peak_flops(setup.precision)
    return Measured(
        rows=size,
        seconds=seconds,
        tokens_per_second=run.batch_tokens / seconds,
        mfu=None if peak is None else timer.flops / timer.seconds / peak,
        memory=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    )


def cells_of(measured: Measured) -> tuple[str, ...]:
    """Return the cells of a measurement below `HEADER`."""
    if measured.seconds is None or measured.tokens_per_second is None:
        return str(measured.rows), "does not fit"
    return (
        str(measured.rows),
        f"{measured.seconds:.3g}",
        human(measured.tokens_per_second),
        "?" if measured.mfu is None else f"{measured.mfu:.1%}",
        "?" if measured.memory is None else human_bytes(measured.memory),
    )


def print_row(cells: Sequence[str]) -> None:
    """Print a row of the table."""
    console.print("".join(f"{cell:<13}" for cell in cells).rstrip(), soft_wrap=True)


def bench(path: str, words: Sequence[str]) -> list[Measured]:
    """Measure the phase that `arm=` and `phase=` select, and print each size when it is measured.

    Raises:
        UserError: If no phase is selected, a number cannot be read, or as `bench_phase`.
    """
    selected, rest = parse_selection(words, ("arm", "phase", "steps", "sizes"))
    config = load_config(path, rest)
    if not {"arm", "phase"} <= set(selected):
        raise UserError(
            f"Say which phase to measure: arm=ARM phase=PHASE (arms here: {', '.join(config.arms)})."
        )
    prepare_environment(config.train, os.environ)
    recipe = Recipe(config)
    run = recipe.phase(selected["arm"], selected["phase"])
    sizes = numbers(selected["sizes"]) if selected.get("sizes") else []
    results: list[Measured] = []
    for measured in bench_phase(recipe, run, numbers(selected.get("steps", "3"))[0], sizes):
        if is_main_process():
            if not results:
                lines = computation_lines(config.train, config.model.attention)
                for line in [*lines, compile_line(config.train), f"{run.id} on {describe_processes()}"]:
                    console.print(line, soft_wrap=True)
                print_row(HEADER)
            print_row(cells_of(measured))
        results.append(measured)
    return results


def numbers(text: str) -> list[int]:
    """Return the numbers of a text like `4,8`.

    Raises:
        UserError: If a part is not a whole number above 0.
    """
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UserError(f"{text!r} is not a list of whole numbers above 0, like 4,8.")
    return [int(part) for part in parts]


def main() -> None:
    """Run the measurement that the command line asks for."""
    with exit_on_user_error(), delay_errors():
        bench(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    main()

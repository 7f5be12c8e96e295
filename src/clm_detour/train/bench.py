"""`clm-detour bench`: real steps of a phase on this machine, at several micro-batch sizes: speed, share of the peak, memory.

Batches, network, optimizer, Trainer and the norm and clipping of gradients are those of training. What stands beside the steps is left out: metrics,
moving average, held-out losses, checkpoints, and the learning rate stays at its peak. The first steps of each size warm up kernels and compiler and are
not counted. The launcher runs this module on several GPUs: CONFIG arm=ARM phase=PHASE steps=N [sizes=4,8].

On several processes memory may run out in one alone. Under `ddp` they agree on that as with `micro_rows: auto`, which is Composer's; under `fsdp`
the others would wait for that one's share of a layer, so there the measurement ends with an error. Sizes that did fit are printed by then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from clm_detour.config import Config, load_config, parse_selection
from clm_detour.data.batch_size import StepRows
from clm_detour.recipe.phases import PhaseRun, check_world, choose_phase
from clm_detour.train.callbacks.checkpoint import Checkpoints
from clm_detour.train.callbacks.gradients import Gradients
from clm_detour.train.callbacks.throughput import peak_flops
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.main import others_first
from clm_detour.train.optim import make_optimizer
from clm_detour.train.parallel import is_first, start_processes
from clm_detour.train.phase import close, make_batches, make_network, make_trainer
from clm_detour.train.setup import Setup, computation_lines, describe_processes
from clm_detour.utils.errors import UserError, exit_on_user_error
from clm_detour.utils.progress import console, human, human_bytes

WARMUP = 2  # steps; the first makes the moments, so the second is the first that holds all there is to hold
HEADER = ("micro_rows", "s a step", "tokens/s", "MFU", "memory")


class DoesNotFitError(Exception):
    """Some process ran out of memory, and all know it."""


@dataclass(frozen=True)
class Measured:
    """One micro-batch size; all but `rows` are None if it did not fit.

    Args:
        seconds: of one step.
        tokens_per_second: over all processes, padding included.
        mfu: None also where the device's peak is not known.
        memory: the most that one process held, bytes; None also on a CPU.
    """

    rows: int
    seconds: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    memory: int | None = None


class Watch(Callback):
    """Seconds and operations of the steps after the first ones, whose rows must fit.

    Args:
        size: rows in a forward; Composer takes fewer once the processes agreed that one ran out of memory.
    """

    def __init__(self, model: PretrainingModel, size: int):
        self.model = model
        self.size = size
        self.start = self.seconds = 0.0
        self.flops = 0

    def batch_start(self, state: State, logger: Logger) -> None:
        """Start once it is warm; no more is agreed on from there, since that takes time."""
        if state.timestamp.batch.value == WARMUP:
            state.auto_microbatching = False
            self.start = now()
        if state.timestamp.batch.value >= WARMUP:
            self.flops += self.model.flops_per_batch(state.batch)

    def before_forward(self, state: State, logger: Logger) -> None:
        """Stop on every process if the rows did not fit on one."""
        assert isinstance(state.device_train_microbatch_size, int)
        if state.device_train_microbatch_size < self.size:
            raise DoesNotFitError

    def fit_end(self, state: State, logger: Logger) -> None:
        """Stop."""
        self.seconds = now() - self.start


class Unkept(Checkpoints):
    """What `Gradients` writes before it stops: nothing of a measurement."""

    def write(self, state: State) -> Path:
        """Say why it stops."""
        raise UserError(
            "The loss was not finite in too many steps in a row to measure them; lower the peak of the phase's schedule."
        )


def now() -> float:
    """The time when the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def bench_phase(config: Config, run: PhaseRun, steps: int, sizes: Sequence[int] = ()) -> Iterator[Measured]:
    """Measure `steps` steps at each size, on every process that the launcher started; none larger than the first that does not fit.

    Args:
        sizes: rows in one forward of one process; none: powers of two up to all rows of a step.

    Yields:
        A size once it is measured.

    Raises:
        UserError: the rows do not divide over the processes, the data is not prepared, the loss is not finite, or one of several
            processes ran out of memory and the others cannot be told.
    """
    check_world(config, dist.get_world_size())
    start_processes()
    rows = config.train.batch_rows // dist.get_world_size()
    tokens = (WARMUP + steps) * run.batch_tokens
    run = replace(run, parent=None, duration=tokens, step_rows=StepRows.constant(config.train.batch_rows))
    setup = Setup.open(config, run)
    for size in sorted(sizes) or [2**power for power in range(rows.bit_length())]:
        found = measure(setup, min(size, rows), steps)
        yield found
        if found.seconds is None:
            break


def measure(setup: Setup, size: int, steps: int) -> Measured:
    """One size."""
    run, train = setup.run, replace(setup.config.train, micro_rows=size, loggers={})
    config = replace(setup.config, train=train)
    setup = replace(setup, config=config)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        network = make_network(setup)
        model = PretrainingModel(network, setup.stream.objective, bf16=train.precision == "bf16")
        watch = Watch(model, size)
        optimizer = make_optimizer(network, config.optimizer, run.phase.schedule.peak)
        batches = make_batches(setup)
        unkept = Unkept(setup.folder.checkpoints, network, average=None, every_tokens=1, keep=1)
        gradients = Gradients(config.optimizer.clip_norm, "skip", None, batches, unkept)
        trainer = make_trainer(setup, model, optimizer, batches, [gradients, watch])
        trainer.state.auto_microbatching = dist.get_world_size() > 1 and train.parallel == "ddp"
        try:
            trainer.fit()
        finally:
            close(trainer)
    except torch.OutOfMemoryError:
        if dist.get_world_size() > 1:  # the launcher ends the others, which wait for this one
            raise UserError(
                f"One of the processes ran out of memory with {size} rows in a forward and could not tell the others, "
                "so the measurement ends here; ask for smaller sizes with --micro-rows."
            ) from None
        return Measured(size)
    except (DoesNotFitError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "out of memory" not in str(error):  # Composer's of one row
            raise
        return Measured(size)
    seconds, peak = watch.seconds / steps, peak_flops(train.precision)
    return Measured(
        rows=size,
        seconds=seconds,
        tokens_per_second=run.batch_tokens / seconds,
        mfu=None if peak is None else watch.flops / watch.seconds / peak,
        memory=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    )


def row(one: Measured) -> tuple[str, ...]:
    """A cell for each of `HEADER`, or fewer."""
    if one.seconds is None or one.tokens_per_second is None:
        return str(one.rows), "does not fit"
    return (
        str(one.rows),
        f"{one.seconds:.3g}",
        human(one.tokens_per_second),
        "?" if one.mfu is None else f"{one.mfu:.1%}",
        "?" if one.memory is None else human_bytes(one.memory),
    )


def show(cells: Sequence[str]) -> None:
    """A line of the table."""
    console.print("".join(f"{cell:<13}" for cell in cells).rstrip(), soft_wrap=True)


def bench(path: str, words: Sequence[str]) -> list[Measured]:
    """Measure the phase that `arm=` and `phase=` choose, and print each size once it is measured.

    Raises:
        UserError: no phase is chosen, a number is none, or as `bench_phase`.
    """
    chosen, rest = parse_selection(words, ("arm", "phase", "steps", "sizes"))
    config = load_config(path, rest)
    if not {"arm", "phase"} <= set(chosen):
        raise UserError(
            f"Say which phase to measure: arm=ARM phase=PHASE (arms here: {', '.join(config.arms)})."
        )
    run = choose_phase(config, chosen["arm"], chosen["phase"])
    sizes = numbers(chosen["sizes"]) if chosen.get("sizes") else []
    found: list[Measured] = []
    for one in bench_phase(config, run, numbers(chosen.get("steps", "3"))[0], sizes):
        if is_first():
            if not found:
                show_header(config, run)
            show(row(one))
        found.append(one)
    return found


def show_header(config: Config, run: PhaseRun) -> None:
    """What is measured, and the names of the columns."""
    for line in [*computation_lines(config), f"{run.id} on {describe_processes()}"]:
        console.print(line, soft_wrap=True)
    show(HEADER)


def numbers(text: str) -> list[int]:
    """`4,8` -> [4, 8].

    Raises:
        UserError: something in it is no number above 0.
    """
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UserError(f"{text!r} is not a list of whole numbers above 0, like 4,8.")
    return [int(part) for part in parts]


def main() -> None:
    """Read the command line."""
    with exit_on_user_error(), others_first():
        bench(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    main()

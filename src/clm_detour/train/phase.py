"""Train one phase with one Composer `Trainer.fit`, and write its model as a Hugging Face folder.

What crosses the boundary between two phases is decided in `clm_detour.recipe.boundary`. A phase that is
finished is skipped. A phase that was interrupted resumes at its newest undamaged checkpoint.
"""

from __future__ import annotations

import atexit
import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from composer import Trainer
from composer.core import Callback, Engine
from composer.utils import dist

from clm_detour.data.loader import StepBatches
from clm_detour.model.compiling import start_compile_workers
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.precision import best_device
from clm_detour.recipe.boundary import boundary_table, starting_network
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.train.callbacks.build import make_callbacks
from clm_detour.train.checkpoints import Position, clear_leftovers, resume_point
from clm_detour.train.composer_model import PretrainingModel, data_spec
from clm_detour.train.deterministic import prepare_environment
from clm_detour.train.finish import finish
from clm_detour.train.loggers import about
from clm_detour.train.micro_rows import MicroRows, choose_micro_rows
from clm_detour.train.numerics import FixedPrecision, numerics
from clm_detour.train.optim import load_optimizer_state, make_optimizer
from clm_detour.train.out_of_memory import explain_out_of_memory
from clm_detour.train.parallel import (
    is_main_process,
    run_on_main_process,
    shard,
    start_processes,
    wait_for_main_process,
)
from clm_detour.train.setup import Setup, compile_line, computation_lines
from clm_detour.utils.allocator import keep_freed_memory, let_gpu_memory_grow
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.files import write_json
from clm_detour.utils.locks import exclusive
from clm_detour.utils.progress import console, progress, say_once
from clm_detour.utils.signals import on_signals


def train_phase(recipe: Recipe, run: PhaseRun) -> bool:
    """Train a phase to its end, on every process that the launcher started.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: If the data or the phase before is missing, the phase was started with other settings, or a
            step had a bad loss.
        Requeue: If the process was asked to stop. It has written a checkpoint.
    """
    recipe.check_world_size(dist.get_world_size())
    prepare_environment(recipe.config.train, os.environ)
    let_gpu_memory_grow()
    start_processes()
    folder = recipe.folder.phase(run.id).root
    with ExitStack() as stack:
        lock = exclusive(folder, f"Another process trains {run.id}")
        run_on_main_process(lambda: stack.enter_context(lock))
        if run_on_main_process(lambda: recipe.is_finished(run)):
            return False
        if is_main_process():
            clear_leftovers(folder)
        setup = Setup(recipe, run, resume_point(recipe.folder.phase(run.id).checkpoints))
        with numerics(recipe.config.train):
            train_unfinished(setup)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # for other processes on the GPU, such as those that fine-tune
    return True


def train_unfinished(setup: Setup) -> None:
    """Train a phase from its start or from the checkpoint at which it resumes."""
    keep_freed_memory()
    run, config = setup.run, setup.config
    if best_device().type == "cuda" or setup.compiles:
        start_compile_workers()
    network = make_network(setup)
    model = PretrainingModel(network, setup.start.objective, bf16=config.train.precision == "bf16")
    micro_rows = choose_micro_rows(setup, model)
    if is_main_process():
        record_start(setup, micro_rows)
    distribute(setup, network)
    started = datetime.datetime.now(datetime.UTC)
    with progress(run.id, run.tokens, "tok") as advance:
        optimizer = make_optimizer(network, config.optimizer, run.phase.schedule.peak)
        if (path := setup.start.optimizer_state) is not None:
            load_optimizer_state(optimizer, network, path, new=setup.start.parameters_without_state(network))
        batches = make_batches(setup)
        callbacks = make_callbacks(setup, model, batches, advance)
        trainer = make_trainer(setup, model, optimizer, batches, callbacks.all, micro_rows.rows)
        setup.log.describe(about(setup.recipe, run))
        try:
            with on_signals(callbacks.preemption.handle), explain_loader_errors():
                with explain_out_of_memory(setup, micro_rows.rows):
                    trainer.fit()
                end = Position.of(trainer.state.timestamp, callbacks.checkpoints.skipped)
                finish(setup, callbacks.models, trainer.state.optimizers[0], started, end)
                callbacks.preemption.phase_end()
        finally:
            close(trainer)
            setup.stream.release()
    wait_for_main_process()


def record_start(setup: Setup, micro_rows: MicroRows) -> None:
    """Write the settings of the phase, and print what crosses the boundary and how the phase is computed."""
    run, resumed, config = setup.run, setup.resumed, setup.config
    write_json(setup.folder.settings, setup.recipe.settings(run))
    position = None
    if resumed is not None:
        position = f"step {resumed.position.step:,} of {run.steps:,}, {resumed.position.tokens:,} tokens"
    console.print(boundary_table(setup.start, position))
    for line in [
        *computation_lines(config.train, config.model.attention),
        compile_line(config.train),
        micro_rows.line,
    ]:
        say_once(f"Training: {line}")


@contextmanager
def explain_loader_errors() -> Iterator[None]:
    """Replace torch's RuntimeError for a loader process that died by a UserError."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "A loader process died, most often because memory ran out; the same command resumes at the "
            "newest checkpoint. If it happens again, lower train.workers or train.checkpoint_every "
            f"({on_one_line(error)})."
        ) from error


def make_network(setup: Setup) -> ModernBertForPretraining:
    """Return the network with the weights with which the phase starts or resumes, not sharded.

    Raises:
        UserError: If the phase before has not finished, or weights cannot be loaded.
    """
    train = setup.config.train
    network = starting_network(setup.start, setup.config.model, setup.tokenizer)
    network.model.half_residual = train.residual == "bf16"
    if setup.compiles:
        network.compile_layers()
    if train.activation_checkpointing:
        network.gradient_checkpointing_enable()
    return network


def distribute(setup: Setup, network: ModernBertForPretraining) -> None:
    """Shard the network over the processes, if the recipe says so."""
    parallel = setup.config.train.parallel
    if parallel != "ddp" and dist.get_world_size() > 1:
        shard(network, by_node=parallel == "hsdp", bf16=setup.precision == "bf16")


def make_batches(setup: Setup) -> StepBatches:
    """Return this process's batches, from the step at which the phase starts or resumes."""
    rank, processes = dist.get_global_rank(), dist.get_world_size()
    batches = StepBatches(setup.stream, setup.start.first_row, setup.run.step_rows, rank, processes)
    if setup.resumed is not None:
        batches.start_step = setup.resumed.position.step
    return batches


def make_trainer(
    setup: Setup,
    model: PretrainingModel,
    optimizer: torch.optim.Optimizer,
    batches: StepBatches,
    callbacks: Sequence[Callback],
    micro_rows: int,
) -> Trainer:
    """Return Composer's Trainer, with its clock at the step at which the phase starts or resumes.

    Args:
        micro_rows: Rows in one forward pass.
    """
    train, run = setup.config.train, setup.run
    trainer = Trainer(
        model=model,
        train_dataloader=data_spec(batches, train.workers, equal=setup.compiles),
        optimizers=optimizer,
        max_duration=f"{run.tokens}tok",
        device_train_microbatch_size=micro_rows,
        accumulate_train_batch_on_tokens=True,
        precision="fp32",  # PretrainingModel sets its own
        seed=run.seed,
        callbacks=[FixedPrecision(train), *callbacks],
        loggers=setup.log.trackers,
        spin_dataloaders=False,  # StepBatches starts at the right step
        progress_bar=False,
        run_name=setup.log.name,  # by which MLflow's logger finds the run to resume
    )
    if setup.resumed is not None:
        trainer.state.timestamp = setup.resumed.position.clock()
    return trainer


def close(trainer: Trainer) -> None:
    """End the callbacks of a trainer and free its model, gradients, optimizer state and loader.

    Composer would hold them until the process ends: it registers an exit hook that only an engine that was
    never closed removes. Its state and its logger also refer to each other, so without that hook they would
    still wait for the garbage collector.
    """
    trainer.engine.close()
    atexit.unregister(Engine._close)
    vars(trainer.state).clear()

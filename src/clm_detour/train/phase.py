"""One phase: one Composer `Trainer.fit`, from the end of the phase before to a Hugging Face folder of its own.

What crosses the boundary: the weights, and the optimizer's moments (unless `moments: fresh`), both as safetensors, and the
stream's position, which is arithmetic. What starts anew: Composer's clock and with it the schedule.
A phase that is finished is left alone; one that was interrupted goes on at its newest good checkpoint.
"""

from __future__ import annotations

import atexit
import datetime
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from composer import Trainer
from composer.core import Callback, Engine
from composer.utils import dist

from clm_detour.config.schema import Config
from clm_detour.data.loader import StepBatches
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.export import tokenizer_path
from clm_detour.recipe.phases import PhaseRun, check_world
from clm_detour.recipe.settings import is_finished, phase_settings
from clm_detour.recipe.start import fresh_moments, starting_network
from clm_detour.records.run_folder import PhaseFolder, RunFolder
from clm_detour.train.callbacks.all import make_callbacks
from clm_detour.train.checkpoints import MOMENTS, Position, clear_leftovers, resume_point
from clm_detour.train.composer_model import PretrainingModel, data_spec
from clm_detour.train.finish import finish
from clm_detour.train.loggers import make_loggers, unique_name
from clm_detour.train.optim import load_moments, make_optimizer
from clm_detour.train.parallel import decided_by_first, is_first, shard, start_processes, still_waiting
from clm_detour.train.setup import Setup, boundary_table, computation_lines
from clm_detour.utils.allocator import keep_freed_memory
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.files import write_json
from clm_detour.utils.locks import exclusive
from clm_detour.utils.progress import console, progress
from clm_detour.utils.signals import on_signals


def train_phase(config: Config, run: PhaseRun) -> bool:
    """Train `run` to its end, on every process that the launcher started.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: the data or the phase before is not there, the folder was started with other settings, or a step went bad.
        Requeue: the process was asked to leave; it has left a checkpoint.
    """
    check_world(config, dist.get_world_size())
    start_processes()
    folder = RunFolder.of(config).phase(run.id)
    other = f"Another process trains {run.id}"
    with ExitStack() as held:
        decided_by_first(lambda: held.enter_context(exclusive(folder.root, other, still_waiting)))
        if decided_by_first(lambda: is_finished(config, run, load_tokenizer(tokenizer_path(config)))):
            return False
        train_unfinished(config, run, folder)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # other processes use the GPU too, like those that fine-tune
    return True


def train_unfinished(config: Config, run: PhaseRun, folder: PhaseFolder) -> None:
    """From the start, or from the newest good checkpoint."""
    keep_freed_memory()
    if is_first():
        clear_leftovers(folder.root)
    setup = Setup.open(config, run, resume_point(folder.checkpoints))
    network = make_network(setup)
    if is_first():
        record_start(setup)
    started = datetime.datetime.now(datetime.timezone.utc)
    with progress(f"{run.id} ({run.phase.objective})", run.tokens, "tok") as advance:
        optimizer = make_optimizer(network, config.optimizer, run.phase.schedule.peak)
        load_start(optimizer, network, setup)
        model = PretrainingModel(network, setup.stream.objective, bf16=config.train.precision == "bf16")
        batches = make_batches(setup)
        callbacks = make_callbacks(setup, model, batches, advance)
        trainer = make_trainer(setup, model, optimizer, batches, callbacks.all)
        try:
            with on_signals(callbacks.preemption.handle), loader_errors():
                trainer.fit()
                end = Position.of(trainer.state.timestamp, callbacks.checkpoints.skipped)
                finish(setup, callbacks.models, trainer.state.optimizers[0], started, end)
                callbacks.preemption.phase_end()
        finally:
            close(trainer)
    dist.barrier()


def record_start(setup: Setup) -> None:
    """Write what the weights depend on, and print what crosses into the phase and how it is computed."""
    config, run, resumed = setup.config, setup.run, setup.resumed
    settings = phase_settings(config, run, setup.stream.sources, setup.tokenizer.fingerprint)
    write_json(setup.folder.settings, settings)
    console.print(boundary_table(config, run, resumed.position if resumed else None))
    for line in computation_lines(config):
        console.print(f"{run.id}: {line}", soft_wrap=True)


@contextmanager
def loader_errors() -> Iterator[None]:
    """torch tells of a loader's dead process in a RuntimeError; make it a sentence."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "A loader process died, most often for want of memory; the same command goes on from the newest checkpoint. "
            f"If it happens again, lower train.workers or train.checkpoint_every ({on_one_line(error)})."
        ) from error


def make_network(setup: Setup) -> ModernBertForPretraining:
    """The network with the weights that the phase goes on from, ready to train."""
    train, resumed = setup.config.train, setup.resumed
    network = starting_network(setup.config, setup.run, setup.tokenizer, resumed.folder if resumed else None)
    if train.compile:
        network.compile_layers()
    if train.activation_checkpointing:
        network.gradient_checkpointing_enable()
    if train.parallel == "fsdp" and dist.get_world_size() > 1:
        shard(network)
    return network


def load_start(optimizer: torch.optim.Optimizer, network: ModernBertForPretraining, setup: Setup) -> None:
    """Give the optimizer the moments that the phase goes on from."""
    run = setup.run
    if setup.resumed is not None:
        load_moments(optimizer, network, setup.resumed.folder / MOMENTS)
    elif run.parent is not None and run.phase.moments == "keep":
        moments = RunFolder.of(setup.config).phase(run.parent.id).moments
        load_moments(optimizer, network, moments, fresh=fresh_moments(run, network))


def make_batches(setup: Setup) -> StepBatches:
    """This process' batches, from the step on that the phase goes on with."""
    run, rank, processes = setup.run, dist.get_global_rank(), dist.get_world_size()
    batches = StepBatches(setup.stream, run.first_row, run.step_rows, rank, processes)
    if setup.resumed is not None:
        batches.start_step = setup.resumed.position.step
    return batches


def make_trainer(
    setup: Setup,
    model: PretrainingModel,
    optimizer: torch.optim.Optimizer,
    batches: StepBatches,
    callbacks: list[Callback],
) -> Trainer:
    """Composer's Trainer, its clock where the phase goes on."""
    train, run, folder = setup.config.train, setup.run, setup.folder
    rows = train.batch_rows // dist.get_world_size()
    auto = train.micro_rows == "auto" and torch.cuda.is_available()
    fixed = train.micro_rows if isinstance(train.micro_rows, int) else rows
    name = unique_name(folder.root, run.id) if train.loggers else run.id
    trainer = Trainer(
        model=model,
        train_dataloader=data_spec(batches, train.workers),
        optimizers=optimizer,
        max_duration=f"{run.tokens}tok",
        device_train_microbatch_size="auto" if auto else fixed,
        accumulate_train_batch_on_tokens=True,
        precision="fp32",  # PretrainingModel sets its own
        seed=run.seed,
        callbacks=callbacks,
        loggers=make_loggers(train.loggers, folder.root, name),
        spin_dataloaders=False,  # StepBatches starts where it should
        progress_bar=False,
        run_name=name,
    )
    if auto:  # our batches have no size that Composer could start its search at
        trainer.state.device_train_microbatch_size = rows
    if setup.resumed is not None:
        trainer.state.timestamp = setup.resumed.position.clock()
    return trainer


def close(trainer: Trainer) -> None:
    """End the callbacks of `trainer`, the only one open, and let go of its model, gradients, moments and loader.

    Composer would hold them until the process ends, for a hook that only an engine that was never closed takes back; and its state
    and logger refer to each other, so without that hook they would still wait for the garbage collector.
    """
    trainer.engine.close()
    atexit.unregister(Engine._close)
    vars(trainer.state).clear()

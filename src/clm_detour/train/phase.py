"""One phase: one Composer `Trainer.fit`, from the end of the phase before to a Hugging Face folder of its own.

What crosses the boundary: the weights, and the optimizer's moments (unless `moments: fresh`), both as safetensors, and the
stream's position, which is arithmetic. What starts anew: Composer's clock and with it the schedule.
A phase that is finished is left alone; one that was interrupted goes on at its newest good checkpoint.
"""

from __future__ import annotations

import datetime
import shutil
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from composer import DataSpec, Trainer
from composer.algorithms import GradientClipping
from composer.utils import dist

from clm_detour.allocator import keep_freed_memory
from clm_detour.config.schema import Config
from clm_detour.config.units import parse_tokens
from clm_detour.data.loader import Batch, RowStream, StepBatches, make_loader
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.files import write_json
from clm_detour.model.attention import choose_backend
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.precision import computed_precision
from clm_detour.progress import Advance, console, progress
from clm_detour.run_folder import PhaseFolder, RunFolder
from clm_detour.train.callbacks.checkpoint import Checkpoints, newest_good
from clm_detour.train.callbacks.learning_rate import LearningRate
from clm_detour.train.callbacks.metrics import Metrics
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.export import tokenizer_path, write_model
from clm_detour.train.optim import load_moments, make_optimizer, save_moments
from clm_detour.train.recipe import PhaseRun, check_world
from clm_detour.train.schedules import phase_rate
from clm_detour.train.settings import is_finished, phase_settings
from clm_detour.train.start import fresh_moments, starting_network
from clm_detour.train.stream import open_stream


def train_phase(config: Config, run: PhaseRun) -> bool:
    """Train `run` to its end, on every process that the launcher started.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: the data or the phase before is not there, or the folder was started with other settings.
    """
    check_world(config, dist.get_world_size())
    if is_finished(config, run):
        return False
    folder = RunFolder.of(config).phase(run.id)
    tokenizer = load_tokenizer(tokenizer_path(config))
    stream = open_stream(config, run, tokenizer)
    network = starting_network(config, run, tokenizer)
    if config.train.compile:
        network.compile_layers()
    if config.train.activation_checkpointing:
        network.gradient_checkpointing_enable()
    keep_freed_memory()
    quiet = dist.get_global_rank() != 0
    if not quiet:
        write_json(folder.settings, phase_settings(config, run, stream.sources, tokenizer.fingerprint))
        console.print(describe_start(run), soft_wrap=True)
        for line in describe_computation(config):
            console.print(f"{run.id}: {line}", soft_wrap=True)
    started = datetime.datetime.now(datetime.timezone.utc)
    with progress(f"{run.id} ({run.phase.objective})", run.tokens, "tok") as advance:
        trainer = make_trainer(config, run, folder, network, stream, advance)
        trainer.fit()
    seconds = trainer.state.timestamp.total_wct.total_seconds()
    trainer.close()
    if not quiet:
        finish(config, run, folder, network, trainer.state.optimizers[0], stream, started, seconds)
    dist.barrier()
    return True


def make_trainer(
    config: Config,
    run: PhaseRun,
    folder: PhaseFolder,
    network: ModernBertForPretraining,
    stream: RowStream,
    advance: Advance,
) -> Trainer:
    """Composer's Trainer for `run`, at its newest good checkpoint if there is one."""
    train = config.train
    world_size = dist.get_world_size()
    optimizer = make_optimizer(network, config.optimizer, run.phase.schedule.peak)
    if run.parent is not None and run.phase.moments == "keep":
        load_moments(
            optimizer,
            network,
            RunFolder.of(config).phase(run.parent.id).moments,
            fresh=fresh_moments(run, network),
        )
    batches = StepBatches(stream, run.first_row, run.step_rows, dist.get_global_rank(), world_size)
    resume_from = newest_good(folder.checkpoints)
    if resume_from is not None and dist.get_global_rank() == 0:
        console.print(f"{run.id} goes on from {resume_from.name}.")
    clip = config.optimizer.clip_norm
    return Trainer(
        model=PretrainingModel(network, stream.objective, bf16=train.precision == "bf16"),
        train_dataloader=data_spec(batches, train.workers),
        optimizers=optimizer,
        max_duration=f"{run.tokens}tok",
        device_train_microbatch_size=train.micro_rows or train.batch_rows // world_size,
        accumulate_train_batch_on_tokens=True,
        precision="fp32",  # PretrainingModel sets its own
        seed=run.seed,
        algorithms=[] if clip is None else [GradientClipping(clipping_type="norm", clipping_threshold=clip)],
        callbacks=[
            LearningRate(phase_rate(run.phase)),
            Metrics(folder.metrics, train.log_every, advance, partial(shares_so_far, run, stream)),
            Checkpoints(folder.checkpoints, parse_tokens(train.checkpoint_every, ""), train.checkpoints_kept),
        ],
        load_path=None if resume_from is None else str(resume_from),
        progress_bar=False,
        run_name=run.id,
    )


def shares_so_far(run: PhaseRun, stream: RowStream, tokens: int) -> dict[str, float]:
    """The sources' shares of the phase's first `tokens`."""
    return stream.mixture.observed_shares(run.first_row, run.first_row + tokens // run.row_tokens)


def data_spec(batches: StepBatches, workers: int) -> DataSpec:
    """The loader, and how Composer counts and cuts its batches."""
    return DataSpec(
        make_loader(batches, workers, pin_memory=torch.cuda.is_available()),
        split_batch=split_batch,
        get_num_samples_in_batch=lambda batch: len(batch["predicted"]),
        get_num_tokens_in_batch=lambda batch: {
            "total": batch["input_ids"].numel(),
            "loss_generating": sum(batch["predicted"]),
        },
    )


def split_batch(batch: Batch, rows: int | float) -> list[Batch]:
    """Cut a batch into micro-batches of `rows` rows."""
    rows = int(rows)
    return [
        {key: value[first : first + rows] for key, value in batch.items()}
        for first in range(0, len(batch["predicted"]), rows)
    ]


def describe_start(run: PhaseRun) -> str:
    """One line: what crosses into the phase and what is new."""
    if run.parent is None:
        source = "the starting weights, a new optimizer"
    else:
        moments = "its moments" if run.phase.moments == "keep" else "fresh moments"
        source = f"the weights of {run.parent.id}, {moments}, a new clock and schedule"
    return f"[bold]{run.id}[/bold]: {source}; rows {run.first_row}..{run.next_row - 1} of {run.phase.mixture}, {run.steps} steps"


def describe_computation(config: Config) -> list[str]:
    """Lines: precision and attention back end, and why."""
    precision, why = computed_precision(config.train.precision, device())
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    choice = choose_backend(config.model.attention, device().type, dtype)
    return [f"computed in {precision} ({why})", f"attention back end {choice.name} ({choice.reason})"]


def finish(
    config: Config,
    run: PhaseRun,
    folder: PhaseFolder,
    network: ModernBertForPretraining,
    optimizer: torch.optim.Optimizer,
    stream: RowStream,
    started: datetime.datetime,
    seconds: float,
) -> None:
    """Write what the next phase needs, then the record that says it is all there, and drop the checkpoints."""
    write_model(network, tokenizer_path(config), folder.model)
    save_moments(optimizer, network, folder.moments)
    write_json(folder.record, phase_record(config, run, stream, started, seconds))
    shutil.rmtree(folder.checkpoints, ignore_errors=True)


def phase_record(
    config: Config, run: PhaseRun, stream: RowStream, started: datetime.datetime, seconds: float
) -> dict[str, Any]:
    """What was done, for people and for the report."""
    observed = shares_so_far(run, stream, run.tokens)
    return {
        "id": run.id,
        "phase": run.name,
        "objective": run.phase.objective,
        "mask_rate": run.phase.mask_rate,
        "mixture": run.phase.mixture,
        "seed": run.seed,
        "freeze": None if run.phase.freeze is None else asdict(run.phase.freeze),
        "reset_head": run.phase.reset_head,
        "schedule": asdict(run.phase.schedule),
        "steps": run.steps,
        "tokens": run.tokens,
        "batch_tokens": run.batch_tokens,
        "first_row": run.first_row,
        "next_row": run.next_row,
        "shares": {
            name: {"target": target, "observed": observed[name]}
            for name, target in stream.mixture.shares.items()
        },
        "seconds": round(seconds, 2),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "world_size": dist.get_world_size(),
        "device": torch.cuda.get_device_name() if device().type == "cuda" else "cpu",
        "precision": computed_precision(config.train.precision, device())[0],
    }


def device() -> torch.device:
    """Where Composer trains."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

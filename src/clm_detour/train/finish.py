"""Finish a phase: write what the next phase needs, then the record that marks the phase as finished."""

from __future__ import annotations

import datetime
import shutil
from dataclasses import asdict

import torch
from composer.utils import dist

from clm_detour.model.precision import best_device
from clm_detour.records.phase import FreezeRecord, PhaseRecord, ScheduleRecord, Share
from clm_detour.records.store import write
from clm_detour.train.callbacks.export import ModelWriter
from clm_detour.train.checkpoints import Position
from clm_detour.train.optim import save_optimizer_state
from clm_detour.train.parallel import run_on_main_process
from clm_detour.train.setup import Setup


def finish(
    setup: Setup,
    models: ModelWriter,
    optimizer: torch.optim.Optimizer,
    started: datetime.datetime,
    position: Position,
) -> None:
    """Write model, optimizer state and record, and delete the checkpoints. Every process must call it."""
    folder = setup.folder
    models.write(position.step, position.tokens, folder.model, folder.ema)
    save_optimizer_state(optimizer, models.network, folder.moments)

    def close() -> None:
        write(phase_record(setup, started, position), folder.record)
        shutil.rmtree(folder.checkpoints, ignore_errors=True)

    run_on_main_process(close)


def phase_record(setup: Setup, started: datetime.datetime, position: Position) -> PhaseRecord:
    """Return the record of a finished phase, for people and for the report."""
    config, run = setup.config, setup.run
    observed = setup.observed_shares(run.tokens)
    freeze = run.phase.freeze
    return PhaseRecord(
        id=run.id,
        phase=run.name,
        objective=run.phase.objective,
        mask_rate=run.phase.mask_rate,
        mask_unit=run.phase.mask_unit,
        mixture=run.phase.mixture,
        hub=setup.recipe.hub_names,
        seed=run.seed,
        freeze=None if freeze is None else FreezeRecord(**asdict(freeze)),
        reset_head=run.phase.reset_head,
        separate_head=run.phase.separate_head,
        schedule=ScheduleRecord(**asdict(run.phase.schedule)),
        steps=run.steps,
        skipped_steps=position.skipped,
        on_bad_loss=config.train.on_bad_loss,
        bad_loss_above=config.train.bad_loss_above,
        tokens=run.tokens,
        batch_tokens=run.batch_tokens,
        first_row=run.first_row,
        next_row=run.next_row,
        shares={
            name: Share(target=target, observed=observed[name])
            for name, target in setup.stream.mixture.shares.items()
        },
        seconds=round(position.seconds, 2),
        started=started.isoformat(timespec="seconds"),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        world_size=dist.get_world_size(),
        parallel=config.train.parallel if dist.get_world_size() > 1 else None,
        device=torch.cuda.get_device_name() if best_device().type == "cuda" else "cpu",
        precision=setup.precision,
    )

"""The end of a phase: what the next one needs, then the record that says it is all there."""

from __future__ import annotations

import datetime
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from composer.utils import dist

from clm_detour.config.schema import Config
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.precision import best_device, computed_precision
from clm_detour.recipe.export import about_phase, hub_names, tokenizer_path, write_model
from clm_detour.recipe.phases import PhaseRun
from clm_detour.train.callbacks.average import Average
from clm_detour.train.checkpoints import Position
from clm_detour.train.optim import save_moments
from clm_detour.train.parallel import is_first, whole_network
from clm_detour.train.setup import Setup
from clm_detour.utils.files import write_json


def finish(
    setup: Setup,
    models: Models,
    optimizer: torch.optim.Optimizer,
    started: datetime.datetime,
    position: Position,
) -> None:
    """Write model, moments and record, and drop the checkpoints; every process must call it."""
    folder = setup.folder
    models.write(position.step, position.tokens, folder.model, folder.ema)
    save_moments(optimizer, models.network, folder.moments)
    if is_first():
        write_json(folder.record, phase_record(setup, started, position))
        shutil.rmtree(folder.checkpoints, ignore_errors=True)


def shares_so_far(setup: Setup, tokens: int) -> dict[str, float]:
    """The sources' shares of the phase's first `tokens`."""
    run = setup.run
    return setup.stream.mixture.observed_shares(run.first_row, run.first_row + tokens // run.row_tokens)


def phase_record(setup: Setup, started: datetime.datetime, position: Position) -> dict[str, Any]:
    """What was done, for people and for the report."""
    config, run = setup.config, setup.run
    observed = shares_so_far(setup, run.tokens)
    return {
        "id": run.id,
        "phase": run.name,
        "objective": run.phase.objective,
        "mask_rate": run.phase.mask_rate,
        "mixture": run.phase.mixture,
        "hub": hub_names(config),
        "seed": run.seed,
        "freeze": None if run.phase.freeze is None else asdict(run.phase.freeze),
        "reset_head": run.phase.reset_head,
        "schedule": asdict(run.phase.schedule),
        "steps": run.steps,
        "skipped_steps": position.skipped,
        "on_bad_loss": config.train.on_bad_loss,
        "bad_loss_above": config.train.bad_loss_above,
        "tokens": run.tokens,
        "batch_tokens": run.batch_tokens,
        "first_row": run.first_row,
        "next_row": run.next_row,
        "shares": {
            name: {"target": target, "observed": observed[name]}
            for name, target in setup.stream.mixture.shares.items()
        },
        "seconds": round(position.seconds, 2),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "world_size": dist.get_world_size(),
        "parallel": config.train.parallel if dist.get_world_size() > 1 else None,
        "device": torch.cuda.get_device_name() if best_device().type == "cuda" else "cpu",
        "precision": computed_precision(config.train.precision, best_device())[0],
    }


class Models:
    """Writes them. Every process must call it."""

    def __init__(
        self, config: Config, run: PhaseRun, network: ModernBertForPretraining, average: Average | None
    ):
        self.config = config
        self.run = run
        self.network = network
        self.average = average

    def write(self, step: int, tokens: int, last: Path, ema: Path) -> None:
        """The weights as they are into the folder `last`, and their average into `ema`."""
        self._write(step, tokens, last, "last")
        if self.average is not None:
            with self.average.in_place():
                self._write(step, tokens, ema, "ema")

    def _write(self, step: int, tokens: int, folder: Path, weights: str) -> None:
        network = whole_network(self.network)
        if is_first():
            about = about_phase(self.config, self.run, step, tokens, weights)
            write_model(network, tokenizer_path(self.config), folder, about)

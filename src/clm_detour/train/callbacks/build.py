"""The callbacks of a phase, in the order in which Composer calls them."""

from __future__ import annotations

from typing import NamedTuple

from composer.core import Callback

from clm_detour.config.units import parse_tokens
from clm_detour.data.loader import StepBatches
from clm_detour.measure.held_out import HeldOut
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.schedules import phase_rate
from clm_detour.train.callbacks.average import Average
from clm_detour.train.callbacks.checkpoint import Checkpoints
from clm_detour.train.callbacks.export import Exports, ModelWriter
from clm_detour.train.callbacks.gradient_sync import gradient_sync
from clm_detour.train.callbacks.gradients import Gradients
from clm_detour.train.callbacks.held_out import HeldOutLoss
from clm_detour.train.callbacks.metrics import Metrics
from clm_detour.train.callbacks.preemption import Preemption
from clm_detour.train.callbacks.step_start import DataArrives, DropoutSeed, LearningRate
from clm_detour.train.callbacks.throughput import Throughput, peak_flops
from clm_detour.train.checkpoints import AVERAGE
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.setup import Setup
from clm_detour.utils.progress import Advance


class PhaseCallbacks(NamedTuple):
    """All callbacks of a phase, and by name those that `train_phase` uses itself."""

    all: list[Callback]
    models: ModelWriter
    checkpoints: Checkpoints
    preemption: Preemption


def make_callbacks(
    setup: Setup, model: PretrainingModel, batches: StepBatches, advance: Advance
) -> PhaseCallbacks:
    """Return the callbacks of a phase.

    Args:
        advance: Advances the progress bar.

    Raises:
        UserError: If held-out losses are asked for and the held-out rows are missing.
    """
    config, run, folder, resumed = setup.config, setup.run, setup.folder, setup.resumed
    train, network = config.train, model.network
    every = parse_tokens(train.checkpoint_every, "train.checkpoint_every")
    average = make_average(setup, network)
    models = ModelWriter(setup, network, average)
    checkpoints = Checkpoints(folder.checkpoints, network, average, every, train.checkpoints_kept)
    if resumed is not None:
        checkpoints.skipped, checkpoints.newest = resumed.position.skipped, resumed.folder
    clip = config.optimizer.clip_norm
    gradients = Gradients(clip, train.on_bad_loss, train.bad_loss_above, batches, checkpoints)
    throughput = Throughput(model, setup.tokenizer.pad, peak_flops(setup.precision))
    export_at = [parse_tokens(at, "train.export_at") for at in train.export_at]
    preemption = Preemption(checkpoints)
    callbacks = [
        DataArrives() if setup.stream.remote else None,
        LearningRate(phase_rate(run.phase)),
        DropoutSeed(run.seed, run.first_row),
        gradient_sync(network, setup.precision == "bf16"),
        gradients,
        throughput,
        average,
        Metrics(
            folder.metrics, train.log_every, setup.log, advance, setup.observed_shares, gradients, throughput
        ),
        make_held_out(setup, network),
        Exports(folder.exports, models, export_at),
        checkpoints,
        preemption,
    ]
    return PhaseCallbacks([each for each in callbacks if each is not None], models, checkpoints, preemption)


def make_average(setup: Setup, network: ModernBertForPretraining) -> Average | None:
    """Return the moving average of the weights, if the recipe asks for one."""
    half_life_tokens, resumed = setup.config.train.ema_half_life, setup.resumed
    if half_life_tokens is None:
        return None
    half_life = parse_tokens(half_life_tokens, "train.ema_half_life")
    return Average(network, half_life, None if resumed is None else resumed.folder / AVERAGE)


def make_held_out(setup: Setup, network: ModernBertForPretraining) -> HeldOutLoss | None:
    """Return the callback for held-out losses on the phase's mixture, if the recipe asks for them."""
    config, train, tokenizer = setup.config, setup.config.train, setup.tokenizer
    if train.evaluate_every is None:
        return None
    sources = setup.recipe.open_sources(config.data.mixtures[setup.run.phase.mixture], "held_out")
    scorers = [
        HeldOut(
            sources=sources,
            vocabulary=tokenizer.vocabulary,
            sequence_length=config.data.sequence_length,
            mask_rate=config.evaluate.mask_rate,
            rows=config.evaluate.rows,
            seed=config.seed,
            kind=kind,
        )
        for kind in ("mlm", "clm")
    ]
    tokens = parse_tokens(train.evaluate_every, "train.evaluate_every")
    return HeldOutLoss(setup.folder.held_out, network, scorers, tokens, train.precision == "bf16", setup.log)

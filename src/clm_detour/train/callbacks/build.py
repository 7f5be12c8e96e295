"""Which callbacks a phase has, in the order in which Composer calls them."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from composer.core import Callback

from clm_detour.config.units import parse_tokens
from clm_detour.data.loader import StepBatches
from clm_detour.measure.held_out import HeldOut
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.precision import best_device, computed_precision
from clm_detour.recipe.schedules import phase_rate
from clm_detour.recipe.stream import open_sources, vocabulary_of
from clm_detour.train.callbacks.average import Average
from clm_detour.train.callbacks.checkpoint import Checkpoints
from clm_detour.train.callbacks.dropout import Dropout
from clm_detour.train.callbacks.export import Exports
from clm_detour.train.callbacks.gradients import Gradients
from clm_detour.train.callbacks.held_out import HeldOutLoss
from clm_detour.train.callbacks.learning_rate import LearningRate
from clm_detour.train.callbacks.metrics import Metrics
from clm_detour.train.callbacks.preemption import Preemption
from clm_detour.train.callbacks.throughput import Throughput, peak_flops
from clm_detour.train.checkpoints import AVERAGE
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.finish import Models, shares_so_far
from clm_detour.train.setup import Setup
from clm_detour.utils.progress import Advance


class PhaseCallbacks(NamedTuple):
    """All of them, and those that the phase itself speaks to."""

    all: list[Callback]
    models: Models
    checkpoints: Checkpoints
    preemption: Preemption


def make_callbacks(
    setup: Setup, model: PretrainingModel, batches: StepBatches, advance: Advance
) -> PhaseCallbacks:
    """Those of one phase.

    Raises:
        UserError: there are no held-out rows to score on.
    """
    config, run, folder, resumed = setup.config, setup.run, setup.folder, setup.resumed
    train, network = config.train, model.network
    every = parse_tokens(train.checkpoint_every, "train.checkpoint_every")
    average = make_average(setup, network)
    models = Models(config, run, network, average)
    checkpoints = Checkpoints(folder.checkpoints, network, average, every, train.checkpoints_kept)
    if resumed is not None:
        checkpoints.skipped, checkpoints.newest = resumed.position.skipped, resumed.folder
    clip = config.optimizer.clip_norm
    gradients = Gradients(clip, train.on_bad_loss, train.bad_loss_above, batches, checkpoints)
    precision, _ = computed_precision(train.precision, best_device())
    throughput = Throughput(model, setup.tokenizer.pad, peak_flops(precision))
    shares = partial(shares_so_far, setup)
    export_at = [parse_tokens(at, "train.export_at") for at in train.export_at]
    preemption = Preemption(checkpoints)
    callbacks = [
        LearningRate(phase_rate(run.phase)),
        Dropout(run.seed, run.first_row),
        gradients,
        throughput,
        average,
        Metrics(folder.metrics, train.log_every, advance, shares, gradients, throughput),
        make_held_out(setup, network),
        Exports(folder.exports, models, export_at),
        checkpoints,
        preemption,
    ]
    return PhaseCallbacks([each for each in callbacks if each is not None], models, checkpoints, preemption)


def make_average(setup: Setup, network: ModernBertForPretraining) -> Average | None:
    """The moving average of the weights, if one is asked for."""
    asked, resumed = setup.config.train.ema_half_life, setup.resumed
    if asked is None:
        return None
    half_life = parse_tokens(asked, "train.ema_half_life")
    return Average(network, half_life, None if resumed is None else resumed.folder / AVERAGE)


def make_held_out(setup: Setup, network: ModernBertForPretraining) -> HeldOutLoss | None:
    """Masked and causal loss on the held-out rows of the phase's own mixture, if asked for."""
    config, train, tokenizer = setup.config, setup.config.train, setup.tokenizer
    if train.evaluate_every is None:
        return None
    sources = open_sources(config, config.data.mixtures[setup.run.phase.mixture], "held_out", tokenizer)
    judges = [
        HeldOut(
            sources=sources,
            vocabulary=vocabulary_of(tokenizer),
            sequence_length=config.data.sequence_length,
            mask_rate=config.evaluate.mask_rate,
            rows=config.evaluate.rows,
            seed=config.seed,
            kind=kind,
        )
        for kind in ("mlm", "clm")
    ]
    tokens = parse_tokens(train.evaluate_every, "train.evaluate_every")
    return HeldOutLoss(setup.folder.held_out, network, judges, tokens, train.precision == "bf16")
